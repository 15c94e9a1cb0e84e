// One warp, one tensor-core product: lane i loads and stores its fragments as registers, in order.

#include "common.cuh"
#include "mma.cuh"

extern "C" __global__ void one_bf16(float* d_32x4, const unsigned* a_32x4, const unsigned* b_32x2) {
  float d[4];
  unsigned a[4], b[2];
  for (int i = 0; i < 4; i++) d[i] = d_32x4[4 * threadIdx.x + i];
  for (int i = 0; i < 4; i++) a[i] = a_32x4[4 * threadIdx.x + i];
  for (int i = 0; i < 2; i++) b[i] = b_32x2[2 * threadIdx.x + i];
  mma_bf16(d, a, b);
  for (int i = 0; i < 4; i++) d_32x4[4 * threadIdx.x + i] = d[i];
}

// Three in a row: what a lane shows for the next product must not reach one that still reads.
extern "C" __global__ void three_tf32(float* d_32x4, const float* a_32x4, const float* b_32x2) {
  float d[4];
  unsigned a[4], b[2];
  for (int i = 0; i < 4; i++) d[i] = d_32x4[4 * threadIdx.x + i];
  for (int turn = 0; turn < 3; turn++) {
    for (int i = 0; i < 4; i++) a[i] = to_tf32((turn + 1) * a_32x4[4 * threadIdx.x + i]);
    for (int i = 0; i < 2; i++) b[i] = to_tf32(b_32x2[2 * threadIdx.x + i]);
    mma_tf32(d, a, b);
  }
  for (int i = 0; i < 4; i++) d_32x4[4 * threadIdx.x + i] = d[i];
}

extern "C" __global__ void rounded(unsigned* tf32_N, unsigned* pairs_N, const float* x_N) {
  tf32_N[threadIdx.x] = to_tf32(x_N[threadIdx.x]);
  pairs_N[threadIdx.x] = pack_bf16(x_N[threadIdx.x], -1.5f);
}
