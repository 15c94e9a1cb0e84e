// gelu and its slope of one number, in float. After common.cuh.
//
// tanh(u) by way of exp: 1 - 2 / (exp(2u) + 1) would cancel near 0, so the logistic of 2u is taken, and
// that of -2u beside it. Few instructions for each number: else the arithmetic takes as long as memory.

#include "exp2.cuh"

#define SQRT_2_OVER_PI 0.7978845608028654f
#define CUBIC 0.044715f
#define TWO_U 2.302208198f  // 2 sqrt(2/π) log2(e): exp(2u) = exp2(TWO_U (x + CUBIC x³))

struct Logistics {
  float of_2u, product;  // logistic(2u), and that times logistic(-2u)
};

__device__ __forceinline__ Logistics logistics(float x) {
  float e = exp2_or_zero(-fabsf(x * fmaf(TWO_U * CUBIC, x * x, TWO_U))), larger;
#ifdef CUDA_ON_CPU
  larger = 1.0f / (1.0f + e);
#else
  asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(larger) : "f"(1.0f + e));  // of a number in [1, 2]
#endif
  float smaller = e * larger;
  Logistics both = {x < 0.0f ? smaller : larger, larger * smaller};
  return both;
}

__device__ __forceinline__ float gelu(float x) { return x * logistics(x).of_2u; }

__device__ __forceinline__ float gelu_slope(float x) {
  Logistics of = logistics(x);
  float twice_du = 2.0f * SQRT_2_OVER_PI * fmaf(3.0f * CUBIC, x * x, 1.0f);
  return fmaf(x * of.product, twice_du, of.of_2u);
}
