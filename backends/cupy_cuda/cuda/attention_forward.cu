// s = q kᵀ / sqrt(D)       lse = log Σ exp(s)       out = Σ exp(s - lse) v        (causal)
//
// A block has M queries of one head, and goes through the keys before them N at a time. The largest
// score so far is subtracted; when it grows, what was added up fades by as much. Tiles above the
// diagonal are not visited. The T x T scores exist only a tile at a time, in registers.

#include "common.cuh"
#include "exp2.cuh"
#include "flash.cuh"
#ifdef TENSOR_CORES
#include "mma.cuh"
#include "tile_mma.cuh"
#else
#include "tile_fma.cuh"
#endif
#include "tile.cuh"

extern "C" __global__ void __launch_bounds__(THREADS, BLOCKS)
attention_forward(element* out_BTHD, float* lse_BHT, const element* qkv_BT3HD, int T, int H, int D,
                  float scale) {
  DYNAMIC_SHARED(word, q_MD);
  word *k_ND = q_MD + M * STRIDE, *v_ND = k_ND + N * STRIDE;
  float* room = (float*)(v_ND + N * STRIDE);
  Head head(T, H, D);
  // The longest rows first: the last blocks to run are short.
  int first = (head.tiles - 1 - head.tile) * M, last = min(first + M, T);
  float scale2 = scale * LOG2_E;

  load_tile<M>(q_MD, qkv_BT3HD + head.at3(T, first, 0), head.step3(), T - first, D);
  Block<D_MAX> out_MD;
  fill(out_MD, 0.0f);
  float top[ROWS], sum[ROWS];
#pragma unroll
  for (int i = 0; i < ROWS; i++) top[i] = -INFINITE, sum[i] = 0.0f;

  for (int start = 0; start < last; start += N) {
    __syncthreads();
    load_tile<N>(k_ND, qkv_BT3HD + head.at3(T, start, 1), head.step3(), T - start, D);
    load_tile<N>(v_ND, qkv_BT3HD + head.at3(T, start, 2), head.step3(), T - start, D);
    __syncthreads();
    Block<N> s_MN;
    fill(s_MN, 0.0f);
    multiply_rows(s_MN, q_MD, k_ND);
    if (start + N > first) {
#pragma unroll
      for (int i = 0; i < ROWS; i++)
#pragma unroll
        for (int j = 0; j < Block<N>::COLUMNS; j++)
          if (start + column(j) > first + row(i)) s_MN.at(i, j) = -INFINITE;
    }
#pragma unroll
    for (int i = 0; i < ROWS; i++) {
      float higher = top[i];
#pragma unroll
      for (int j = 0; j < Block<N>::COLUMNS; j++) higher = fmaxf(higher, s_MN.at(i, j));
      higher = row_max(higher);
      // Where no score is above -infinity, exp(-infinity - 0) is 0, and not NaN.
      float base = higher == -INFINITE ? 0.0f : higher * scale2;
      float fade = exp2_or_zero(top[i] * scale2 - base);
      top[i] = higher;
      sum[i] *= fade;
#pragma unroll
      for (int j = 0; j < Block<N>::COLUMNS; j++) {
        float p = exp2_or_zero(s_MN.at(i, j) * scale2 - base);
        s_MN.at(i, j) = p;
        sum[i] += p;
      }
#pragma unroll
      for (int j = 0; j < Block<D_MAX>::COLUMNS; j++) out_MD.at(i, j) *= fade;
    }
    multiply_columns(out_MD, s_MN, v_ND, room);
  }
#pragma unroll
  for (int i = 0; i < ROWS; i++) {
    float total = row_sum(sum[i]), share = 1.0f / total;
#pragma unroll
    for (int j = 0; j < Block<D_MAX>::COLUMNS; j++) out_MD.at(i, j) *= share;
    if (threadIdx.x % LANES == 0 && first + row(i) < T)
      lse_BHT[head.stat(T) + first + row(i)] = top[i] * scale + logf(total);
  }
  store_block(out_BTHD + head.at(T, first), head.step(), T - first, D, out_MD);
}
