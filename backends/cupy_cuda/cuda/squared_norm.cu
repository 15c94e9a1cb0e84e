// sum = Σ x²
//
// In two launches, each with a fixed order of addition, so that the bits are the same in every run: each
// block sums its part of x, at a stride of the whole grid, and one block adds the sums of the blocks.
// A thread's own sums are float32 (some hundred numbers each at 124M), all that follows is double.

#include "common.cuh"
#include "quads.cuh"

// The sum over a block of whole warps, in thread 0.
__device__ __forceinline__ double block_total(double x) {
  __shared__ double sum_of_warp[32];
  int warp = threadIdx.x / 32, lane = threadIdx.x % 32, warps = blockDim.x / 32;
  for (int bits = 16; bits; bits /= 2) x += __shfl_xor_sync(0xffffffffu, x, bits);
  if (lane == 0) sum_of_warp[warp] = x;
  __syncthreads();
  x = lane < warps ? sum_of_warp[lane] : 0.0;
  for (int bits = 16; bits; bits /= 2) x += __shfl_xor_sync(0xffffffffu, x, bits);
  return x;
}

extern "C" __global__ void sum_of_squares(double* parts_K, const element* x_P, int64 P) {
  Quad sum = {{0, 0, 0, 0}};
  int64 whole = P / 4;
#pragma unroll 4
  for (int64 q = thread_index(); q < whole; q += thread_count()) {
    Quad x = load_quad(x_P + 4 * q);
    for (int k = 0; k < 4; k++) sum.part[k] = fmaf(x.part[k], x.part[k], sum.part[k]);
  }
  int64 p = 4 * whole + thread_index();
  float last = p < P ? wide(x_P[p]) : 0.0f;
  double total = ((double)sum.part[0] + sum.part[1]) + ((double)sum.part[2] + sum.part[3]);
  total = block_total(total + (double)last * last);
  if (threadIdx.x == 0) parts_K[blockIdx.x] = total;
}

// One block, and a thread for each of at most 1024 parts.
extern "C" __global__ void add_parts(float* sum_1, const double* parts_K, int K) {
  double total = block_total(threadIdx.x < K ? parts_K[threadIdx.x] : 0.0);
  if (threadIdx.x == 0) sum_1[0] = (float)total;
}
