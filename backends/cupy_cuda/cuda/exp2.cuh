// Powers of 2, of which exp is made: exp(x) = 2^(x log2 e). Within 2^-22, by one instruction.

#define LOG2_E 1.4426950408889634f

// 2^x; results below 2^-126 are 0.
__device__ __forceinline__ float exp2_or_zero(float x) {
#ifdef CUDA_ON_CPU
  return x < -126.0f ? 0.0f : exp2f(x);
#else
  float y;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
#endif
}
