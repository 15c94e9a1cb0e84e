// p = exp(q kᵀ / sqrt(D) - lse)      dp = dout vᵀ       ds = p (dp - delta),   delta = dout · out
//
//     dv = pᵀ dout        dk = dsᵀ q / sqrt(D)        dq = ds k / sqrt(D)
//
// The scores are computed twice: by blocks that have M keys of a head and go through the queries after
// them, for dk and dv, and by blocks that have M queries and go through the keys before them, for dq.
// So each sum has one owner and one order, and nothing is added to by several blocks.

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

// A warp has a row of D numbers, and goes on at a stride of the grid.
extern "C" __global__ void attention_delta(float* delta_BHT, const element* dout_BTHD,
                                           const element* out_BTHD, int64 rows, int T, int H, int D) {
  int lane = threadIdx.x % 32;
  for (int64 r = thread_index() / 32; r < rows; r += thread_count() / 32) {
    float sum = 0.0f;
    for (int d = lane; d < D; d += 32) sum += wide(dout_BTHD[r * D + d]) * wide(out_BTHD[r * D + d]);
    sum = warp_sum(sum);
    int64 n = r / H, h = r % H, b = n / T, t = n % T;
    if (lane == 0) delta_BHT[(b * H + h) * T + t] = sum;
  }
}

// p of a score. It is at most 1, whatever a large score's own rounding makes of it. In float32 it goes
// down to the smallest number: a key that no query looks at has gradients of nothing but such.
__device__ __forceinline__ float probability(float s, float scale2, float lse2) {
  float x = s * scale2 - lse2;
  if (x > 0.0f) x = 0.0f;  // and not fminf, which would make 0 of NaN
#ifdef TENSOR_CORES
  return exp2_or_zero(x);
#else
  return exp2f(x);
#endif
}

extern "C" __global__ void __launch_bounds__(THREADS, BLOCKS_KEYS)
attention_backward_keys(element* dqkv_BT3HD, const element* dout_BTHD, const element* qkv_BT3HD,
                        const float* lse_BHT, const float* delta_BHT, int T, int H, int D,
                        float scale) {
  DYNAMIC_SHARED(word, k_MD);
  word *v_MD = k_MD + M * STRIDE, *q_ND = v_MD + M * STRIDE, *dout_ND = q_ND + N * STRIDE;
  float *lse2_N = (float*)(dout_ND + N * STRIDE), *delta_N = lse2_N + N, *room = delta_N + N;
  Head head(T, H, D);
  int first = head.tile * M;
  float scale2 = scale * LOG2_E;

  load_tile<M>(k_MD, qkv_BT3HD + head.at3(T, first, 1), head.step3(), T - first, D);
  load_tile<M>(v_MD, qkv_BT3HD + head.at3(T, first, 2), head.step3(), T - first, D);
  Block<D_MAX> dk_MD, dv_MD;
  fill(dk_MD, 0.0f);
  fill(dv_MD, 0.0f);

  for (int start = first; start < T; start += N) {
    __syncthreads();
    load_tile<N>(q_ND, qkv_BT3HD + head.at3(T, start, 0), head.step3(), T - start, D);
    load_tile<N>(dout_ND, dout_BTHD + head.at(T, start), head.step(), T - start, D);
    for (int n = threadIdx.x; n < N; n += THREADS) {
      bool there = start + n < T;
      lse2_N[n] = there ? lse_BHT[head.stat(T) + start + n] * LOG2_E : 0.0f;
      delta_N[n] = there ? delta_BHT[head.stat(T) + start + n] : 0.0f;
    }
    __syncthreads();
    Block<N> p_MN, ds_MN;
    fill(p_MN, 0.0f);
    multiply_rows(p_MN, k_MD, q_ND);
    // Queries beyond the last are zeros here, and so is what they add.
    bool edge = start < first + M;
#pragma unroll
    for (int i = 0; i < ROWS; i++)
#pragma unroll
      for (int j = 0; j < Block<N>::COLUMNS; j++) {
        float p = probability(p_MN.at(i, j), scale2, lse2_N[column(j)]);
        p_MN.at(i, j) = edge && start + column(j) < first + row(i) ? 0.0f : p;
      }
    multiply_columns(dv_MD, p_MN, dout_ND, room);
    fill(ds_MN, 0.0f);
    multiply_rows(ds_MN, v_MD, dout_ND);
#pragma unroll
    for (int i = 0; i < ROWS; i++)
#pragma unroll
      for (int j = 0; j < Block<N>::COLUMNS; j++)
        ds_MN.at(i, j) = p_MN.at(i, j) * (ds_MN.at(i, j) - delta_N[column(j)]);
    multiply_columns(dk_MD, ds_MN, q_ND, room);
  }
#pragma unroll
  for (int i = 0; i < ROWS; i++)
#pragma unroll
    for (int j = 0; j < Block<D_MAX>::COLUMNS; j++) dk_MD.at(i, j) *= scale;
  store_block(dqkv_BT3HD + head.at3(T, first, 1), head.step3(), T - first, D, dk_MD);
  store_block(dqkv_BT3HD + head.at3(T, first, 2), head.step3(), T - first, D, dv_MD);
}

extern "C" __global__ void __launch_bounds__(THREADS, BLOCKS_BACKWARD)
attention_backward_queries(element* dqkv_BT3HD, const element* dout_BTHD, const element* qkv_BT3HD,
                           const float* lse_BHT, const float* delta_BHT, int T, int H, int D,
                           float scale) {
  DYNAMIC_SHARED(word, q_MD);
  word *dout_MD = q_MD + M * STRIDE, *k_ND = dout_MD + M * STRIDE, *v_ND = k_ND + N * STRIDE;
  float *lse2_M = (float*)(v_ND + N * STRIDE), *delta_M = lse2_M + M, *room = delta_M + M;
  Head head(T, H, D);
  int first = (head.tiles - 1 - head.tile) * M, last = min(first + M, T);
  float scale2 = scale * LOG2_E;

  load_tile<M>(q_MD, qkv_BT3HD + head.at3(T, first, 0), head.step3(), T - first, D);
  load_tile<M>(dout_MD, dout_BTHD + head.at(T, first), head.step(), T - first, D);
  Block<D_MAX> dq_MD;
  fill(dq_MD, 0.0f);
  for (int m = threadIdx.x; m < M; m += THREADS) {
    bool there = first + m < T;
    lse2_M[m] = there ? lse_BHT[head.stat(T) + first + m] * LOG2_E : 0.0f;
    delta_M[m] = there ? delta_BHT[head.stat(T) + first + m] : 0.0f;
  }

  for (int start = 0; start < last; start += N) {
    __syncthreads();
    load_tile<N>(k_ND, qkv_BT3HD + head.at3(T, start, 1), head.step3(), T - start, D);
    load_tile<N>(v_ND, qkv_BT3HD + head.at3(T, start, 2), head.step3(), T - start, D);
    __syncthreads();
    Block<N> p_MN, ds_MN;
    fill(p_MN, 0.0f);
    multiply_rows(p_MN, q_MD, k_ND);
    bool edge = start + N > first;
#pragma unroll
    for (int i = 0; i < ROWS; i++)
#pragma unroll
      for (int j = 0; j < Block<N>::COLUMNS; j++) {
        float p = probability(p_MN.at(i, j), scale2, lse2_M[row(i)]);
        p_MN.at(i, j) = edge && start + column(j) > first + row(i) ? 0.0f : p;
      }
    fill(ds_MN, 0.0f);
    multiply_rows(ds_MN, dout_MD, v_ND);
#pragma unroll
    for (int i = 0; i < ROWS; i++)
#pragma unroll
      for (int j = 0; j < Block<N>::COLUMNS; j++)
        ds_MN.at(i, j) = p_MN.at(i, j) * (ds_MN.at(i, j) - delta_M[row(i)]);
    multiply_columns(dq_MD, ds_MN, k_ND, room);
  }
#pragma unroll
  for (int i = 0; i < ROWS; i++)
#pragma unroll
    for (int j = 0; j < Block<D_MAX>::COLUMNS; j++) dq_MD.at(i, j) *= scale;
  store_block(dqkv_BT3HD + head.at3(T, first, 0), head.step3(), T - first, D, dq_MD);
}
