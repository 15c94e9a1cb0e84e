// guard:       scale = NaN where an x is NaN or infinite, and otherwise what it was
// clip_scale:  scale = min(1, limit / (sqrt(sum) + 1e-6))
//
// What a step decides of itself on the device. A thread of guard looks at four numbers at a time, and
// goes on at a stride of the whole grid; clip_scale is one thread.

#include "common.cuh"
#include "quads.cuh"

__device__ __forceinline__ float not_a_number() { return __uint_as_float(0x7FC00000u); }

__device__ __forceinline__ bool is_finite(float x) {
  return (__float_as_uint(x) & 0x7F800000u) != 0x7F800000u;
}

// Threads that find one all write the same bits.
extern "C" __global__ void guard(float* scale_1, const element* x_P, int64 P) {
  bool finite = true;
  int64 whole = P / 4;
  for (int64 q = thread_index(); q < whole; q += thread_count()) {
    Quad x = load_quad(x_P + 4 * q);
    for (int k = 0; k < 4; k++) finite = finite && is_finite(x.part[k]);
  }
  int64 p = 4 * whole + thread_index();
  if (p < P) finite = finite && is_finite(wide(x_P[p]));
  if (!finite) scale_1[0] = not_a_number();
}

// NaN stays, and comes of a sum that is not finite.
// limit_bits: of a double, which no kernel of ours takes by itself.
extern "C" __global__ void clip_scale(float* scale_1, const float* sum_1, int64 limit_bits) {
  union {
    int64 bits;
    double value;
  } limit;
  limit.bits = limit_bits;
  float scale = scale_1[0], sum = sum_1[0];
  if (scale != scale) return;
  double wanted = limit.value / (sqrt((double)sum) + 1e-6);
  scale_1[0] = !is_finite(sum) ? not_a_number() : wanted >= 1.0 ? 1.0f : (float)wanted;
}
