// out[c] = Σ_n x[n,c], by way of sums[r,c] over chunks of rows; the order of addition is fixed.
//
// A warp has 32 packs of columns (32 single columns where rows are not aligned) and every eighth row of
// its block's chunk; the eight sums of a block meet in shared memory. The grid is tiles of columns x
// chunks. No atomics: the same bits every run.

#include "common.cuh"
#include "gelu.cuh"

#define WARPS 8

// The value summed at one place; what stands there after it may be written as well.
struct Itself {
  const element* x_NC;
  __device__ __forceinline__ Pack<element> pack(int64 at) const { return load_pack(x_NC + at); }
  __device__ __forceinline__ element one(int64 at) const { return x_NC[at]; }
};

// dpre = dout · gelu'(pre), written, and summed as it is written.
struct GeluGradient {
  element* dpre_NC;
  const element* dout_NC;
  const element* pre_NC;
  __device__ __forceinline__ element gradient(element dout, element pre) const {
    return narrow<element>(wide(dout) * gelu_slope(wide(pre)));
  }
  __device__ __forceinline__ Pack<element> pack(int64 at) const {
    Pack<element> dout = load_pack(dout_NC + at), pre = load_pack(pre_NC + at), dpre;
    for (int k = 0; k < Pack<element>::SIZE; k++) dpre.part[k] = gradient(dout.part[k], pre.part[k]);
    store_pack(dpre_NC + at, dpre);
    return dpre;
  }
  __device__ __forceinline__ element one(int64 at) const {
    return dpre_NC[at] = gradient(dout_NC[at], pre_NC[at]);
  }
};

template <int SIZE>
__device__ __forceinline__ void write_sums(float* sums_RC, const float (&sum)[SIZE], int64 column,
                                           int64 C) {
  __shared__ float room[WARPS][32 * Pack<element>::SIZE];
  int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  for (int k = 0; k < SIZE; k++) room[warp][lane + 32 * k] = sum[k];  // no two lanes in one bank
  __syncthreads();
  for (int i = threadIdx.x; i < 32 * SIZE; i += blockDim.x) {
    float total = 0.0f;
    for (int w = 0; w < WARPS; w++) total += room[w][i];
    int64 c = column + (i % 32) * SIZE + i / 32;
    if (c < C) sums_RC[(int64)blockIdx.y * C + c] = total;
  }
}

template <class Values>
__device__ __forceinline__ void sum_chunk(float* sums_RC, Values values, int64 N, int64 C) {
  const int SIZE = Pack<element>::SIZE;
  int64 chunk = (N + gridDim.y - 1) / gridDim.y;
  int64 first = blockIdx.y * chunk, last = first + chunk < N ? first + chunk : N;
  int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  if (C % SIZE == 0) {
    int64 column = (int64)blockIdx.x * 32 * SIZE, mine = column + lane * SIZE;
    float sum[SIZE];
    for (int k = 0; k < SIZE; k++) sum[k] = 0.0f;
    if (mine < C) {
#pragma unroll 4
      for (int64 n = first + warp; n < last; n += WARPS) {
        Pack<element> x = values.pack(n * C + mine);
        for (int k = 0; k < SIZE; k++) sum[k] += wide(x.part[k]);
      }
    }
    write_sums(sums_RC, sum, column, C);
  } else {
    int64 column = (int64)blockIdx.x * 32, mine = column + lane;
    float sum[1] = {0.0f};
    if (mine < C)
      for (int64 n = first + warp; n < last; n += WARPS) sum[0] += wide(values.one(n * C + mine));
    write_sums(sums_RC, sum, column, C);
  }
}

// blockDim 256; grid: tiles of 32 packs (or 32 columns) x chunks of rows.
extern "C" __global__ void sum_columns(float* sums_RC, const element* x_NC, int64 N, int64 C) {
  sum_chunk(sums_RC, Itself{x_NC}, N, C);
}

extern "C" __global__ void gelu_backward_columns(element* dpre_NC, float* sums_RC,
                                                 const element* dout_NC, const element* pre_NC,
                                                 int64 N, int64 C) {
  sum_chunk(sums_RC, GeluGradient{dpre_NC, dout_NC, pre_NC}, N, C);
}

// out = Σ_r sums[r], or out += Σ_r sums[r]. blockDim (32, 32): a warp has every 32nd row of 32 columns.
extern "C" __global__ void add_sums(float* out_C, const float* sums_RC, int R, int64 C,
                                    int accumulate) {
  __shared__ float room[32][33];
  int64 c = (int64)blockIdx.x * 32 + threadIdx.x;
  float sum = 0.0f;
  if (c < C)
    for (int r = threadIdx.y; r < R; r += 32) sum += sums_RC[(int64)r * C + c];
  room[threadIdx.y][threadIdx.x] = sum;
  __syncthreads();
  if (threadIdx.y == 0 && c < C) {
    float total = 0.0f;
    for (int w = 0; w < 32; w++) total += room[w][threadIdx.x];
    out_C[c] = accumulate ? out_C[c] + total : total;
  }
}
