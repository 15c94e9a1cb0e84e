// out[c] = Σ_n x[n,c], by way of sums[r,c] over chunks of rows; the order of addition is fixed.
//
// A warp has 32 packs of columns (32 single columns where rows are not aligned) and every eighth row of
// its block's chunk; the eight sums of a block meet in shared memory. The grid is tiles of columns x
// chunks. No atomics: the same bits every run.

#include "common.cuh"
#include "gelu.cuh"

#define WARPS 8

// The value summed at one place; what stands there after it may be written as well. What it is made of
// is loaded first, for ROWS rows at a time, as a store would hold the loads behind it back.
struct Itself {
  static const int ROWS = 4;
  const element* x_NC;
  struct Loaded {
    Pack<element> x;
  };
  __device__ __forceinline__ Loaded load(int64 at) const {
    Loaded loaded;
    loaded.x = load_pack(x_NC + at);
    return loaded;
  }
  __device__ __forceinline__ void take(float (&x)[Pack<element>::SIZE], const Loaded& loaded, int64) const {
    for (int k = 0; k < Pack<element>::SIZE; k++) x[k] = wide(loaded.x.part[k]);
  }
  __device__ __forceinline__ element one(int64 at) const { return x_NC[at]; }
};

// store_pack, which the compiler would take apart into four stores of 32 bits here.
__device__ __forceinline__ void store_at_once(element* to, const Pack<element>& pack) {
#ifdef CUDA_ON_CPU
  store_pack(to, pack);
#else
  uint4 x = pack.whole;
  asm volatile("st.global.v4.b32 [%0], {%1, %2, %3, %4};" ::"l"(__cvta_generic_to_global(to)), "r"(x.x),
               "r"(x.y), "r"(x.z), "r"(x.w)
               : "memory");
#endif
}

// dpre = dout · gelu'(pre), written, and summed as it is written.
struct GeluGradient {
  static const int ROWS = 2;
  element* dpre_NC;
  const element* dout_NC;
  const element* pre_NC;
  struct Loaded {
    Pack<element> dout, pre;
  };
  __device__ __forceinline__ element gradient(element dout, element pre) const {
    return narrow<element>(wide(dout) * gelu_slope(wide(pre)));
  }
  __device__ __forceinline__ Loaded load(int64 at) const {
    Loaded loaded;
    loaded.dout = load_pack(dout_NC + at);
    loaded.pre = load_pack(pre_NC + at);
    return loaded;
  }
  __device__ __forceinline__ void take(float (&x)[Pack<element>::SIZE], const Loaded& loaded,
                                       int64 at) const {
    Pack<element> dpre;
    for (int k = 0; k < Pack<element>::SIZE; k++) {
      dpre.part[k] = gradient(loaded.dout.part[k], loaded.pre.part[k]);
      x[k] = wide(dpre.part[k]);
    }
    store_at_once(dpre_NC + at, dpre);
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

// The sums of columns, and ROWS more rows: the first at `at`, the others `apart` from each other.
template <int ROWS, class Values>
__device__ __forceinline__ void add_rows(float (&sum)[Pack<element>::SIZE], const Values& values, int64 at,
                                         int64 apart) {
  typename Values::Loaded loaded[ROWS];
#pragma unroll
  for (int j = 0; j < ROWS; j++) loaded[j] = values.load(at + j * apart);
#pragma unroll
  for (int j = 0; j < ROWS; j++) {
    float x[Pack<element>::SIZE];
    values.take(x, loaded[j], at + j * apart);
    for (int k = 0; k < Pack<element>::SIZE; k++) sum[k] += x[k];
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
      int64 n = first + warp;
      for (; n + (Values::ROWS - 1) * WARPS < last; n += Values::ROWS * WARPS)
        add_rows<Values::ROWS>(sum, values, n * C + mine, WARPS * C);
      for (; n < last; n += WARPS) add_rows<1>(sum, values, n * C + mine, 0);
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

// blockDim 256; grid: tiles of 32 packs (or 32 columns) x chunks of rows, four blocks a multiprocessor.
extern "C" __global__ void __launch_bounds__(256, 4)
sum_columns(float* sums_RC, const element* x_NC, int64 N, int64 C) {
  sum_chunk(sums_RC, Itself{x_NC}, N, C);
}

extern "C" __global__ void __launch_bounds__(256, 4)
gelu_backward_columns(element* dpre_NC, float* sums_RC,
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
