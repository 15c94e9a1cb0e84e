// lse = log Σ_v exp(logits[v])          loss = lse - logits[target]
// dlogits[v] = dloss (exp(logits[v] - lse) - [v = target])
//
// A block has a row, or a warp where rows are short (rows.cuh). Both halves read a row once: the maximum
// and the sum are found together, and kept as a pair. The gradient may be written over the logits: each
// number is read and written by the same thread.

#include "rows.cuh"

extern "C" __global__ void __launch_bounds__(256, 4)
cross_entropy_forward(float* loss_N, float* lse_N, const element* logits_NV, const int* targets_N,
                      int64 N, int V, int vocab_size) {
  __shared__ float room[64];
  int64 n = row_of_thread();
  if (n >= N) return;
  const element* logits_V = logits_NV + n * V;
  int target = threadIdx.x == 0 ? targets_N[n] : -1;
  float chosen = target < 0 ? 0.0f : wide(logits_V[target]);
  LogSum row = row_log_sum(logits_V, vocab_size, room);
  if (threadIdx.x) return;
  float lse = row.top + logf(row.total);
  lse_N[n] = lse;
  loss_N[n] = target < 0 ? 0.0f : lse - chosen;
}

// exp(logit - lse), down to the smallest float32: dloss may be large.
__device__ __forceinline__ float probability(element logit, float lse) {
  return exp2f((wide(logit) - lse) * LOG2_E);
}

// The pack of a row that begins at column v; beyond vocab_size there are zeros, whatever is read.
__device__ __forceinline__ void store_slopes(element* to, const Pack<element>& logits, float dloss,
                                             float lse, int v, int target, int vocab_size) {
  const int SIZE = Pack<element>::SIZE;
  float slope[SIZE];
#pragma unroll
  for (int k = 0; k < SIZE; k++) slope[k] = probability(logits.part[k], lse);
  if ((unsigned)(target - v) < SIZE) {
#pragma unroll
    for (int k = 0; k < SIZE; k++) slope[k] -= v + k == target ? 1.0f : 0.0f;
  }
#pragma unroll
  for (int k = 0; k < SIZE; k++) slope[k] *= dloss;
  if (v + SIZE > vocab_size) {
#pragma unroll
    for (int k = 0; k < SIZE; k++)
      if (v + k >= vocab_size) slope[k] = 0.0f;
  }
  store_pack(to, narrow_pack(slope));
}

__device__ void fill_with_zeros(element* row, int count) {
  const int SIZE = Pack<element>::SIZE;
  Cut cut = cut_row(row, row, count);
  Pack<element> zeros;
  for (int k = 0; k < SIZE; k++) zeros.part[k] = narrow<element>(0.0f);
  for (int i = threadIdx.x; i < cut.packs; i += blockDim.x)
    store_pack(row + cut.head + i * SIZE, zeros);
  for (int v = threadIdx.x; v < count; v += blockDim.x)
    if (v < cut.head || v >= cut.tail) row[v] = narrow<element>(0.0f);
}

extern "C" __global__ void __launch_bounds__(256, 5)
cross_entropy_backward(element* dlogits_NV, const float* dloss_N, const element* logits_NV,
                       const float* lse_N, const int* targets_N, int64 N, int V, int vocab_size) {
  const int SIZE = Pack<element>::SIZE;
  int64 n = row_of_thread();
  if (n >= N) return;
  element* dlogits_V = dlogits_NV + n * V;
  const element* logits_V = logits_NV + n * V;
  int target = targets_N[n];
  if (target < 0) return fill_with_zeros(dlogits_V, V);
  float dloss = dloss_N[n], lse = lse_N[n];
  Cut cut = cut_row(dlogits_V, logits_V, V);
  int i = threadIdx.x, threads = blockDim.x;
  for (; i + 3 * threads < cut.packs; i += 4 * threads) {
    Pack<element> logits[4];
#pragma unroll
    for (int j = 0; j < 4; j++) logits[j] = load_pack(logits_V + cut.head + (i + j * threads) * SIZE);
#pragma unroll
    for (int j = 0; j < 4; j++) {
      int v = cut.head + (i + j * threads) * SIZE;
      store_slopes(dlogits_V + v, logits[j], dloss, lse, v, target, vocab_size);
    }
  }
  for (; i < cut.packs; i += threads) {
    int v = cut.head + i * SIZE;
    store_slopes(dlogits_V + v, load_pack(logits_V + v), dloss, lse, v, target, vocab_size);
  }
  int ends = cut.head + V - cut.tail;
  for (int e = threadIdx.x; e < ends; e += threads) {
    int v = e < cut.head ? e : e - cut.head + cut.tail;
    float slope = dloss * (probability(logits_V[v], lse) - (v == target ? 1.0f : 0.0f));
    dlogits_V[v] = narrow<element>(v < vocab_size ? slope : 0.0f);
  }
}
