// Four numbers at a time, float in registers: 16 bytes of memory as float, 8 as bf16. So arrays of both
// types go side by side, a thread's four being the same four in each.
//
// Include common.cuh first. A whole quad's address must be a multiple of its size; of one that is not
// whole (the end of an array) only `count` numbers are touched, and the others are 0.

struct Quad {
  float part[4];
};

__device__ __forceinline__ Quad load_quad(const float* from) {
  float4 four = *(const float4*)from;
  Quad quad = {{four.x, four.y, four.z, four.w}};
  return quad;
}
__device__ __forceinline__ Quad load_quad(const bf16* from) {
  uint2 pairs = *(const uint2*)from;  // the first number of a pair is in its low half
  Quad quad = {{__uint_as_float(pairs.x << 16), __uint_as_float(pairs.x & 0xFFFF0000u),
                __uint_as_float(pairs.y << 16), __uint_as_float(pairs.y & 0xFFFF0000u)}};
  return quad;
}

__device__ __forceinline__ void store_quad(float* to, const Quad& quad) {
  float4 four = {quad.part[0], quad.part[1], quad.part[2], quad.part[3]};
  *(float4*)to = four;
}
__device__ __forceinline__ unsigned pair_of(float low, float high) {
  return (unsigned)to_bf16(low).bits | (unsigned)to_bf16(high).bits << 16;
}
__device__ __forceinline__ void store_quad(bf16* to, const Quad& quad) {
  // One number of 64 bits: the compiler takes two of 32 apart again, in loops that it unrolls.
  unsigned long long both = pair_of(quad.part[2], quad.part[3]);
  *(unsigned long long*)to = both << 32 | pair_of(quad.part[0], quad.part[1]);
}

template <class T>
__device__ __forceinline__ Quad load_quad(const T* from, int count) {
  if (count == 4) return load_quad(from);
  Quad quad;
  for (int k = 0; k < 4; k++) quad.part[k] = k < count ? wide(from[k]) : 0.0f;
  return quad;
}
template <class T>
__device__ __forceinline__ void store_quad(T* to, const Quad& quad, int count) {
  if (count == 4) return store_quad(to, quad);
  for (int k = 0; k < 4; k++)
    if (k < count) to[k] = narrow<T>(quad.part[k]);
}
