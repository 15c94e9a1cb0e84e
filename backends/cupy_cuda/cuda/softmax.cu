// probs[v] = exp(logits[v] - max) / Σ_w exp(logits[w] - max)
// dlogits[v] = probs[v] (dprobs[v] - Σ_w probs[w] dprobs[w])
//
// A block has a row, or a warp where rows are short (rows.cuh), and goes over it twice. Padded columns
// are written with zeros, whatever is read there.

#include "rows.cuh"

extern "C" __global__ void __launch_bounds__(256)
softmax_forward(element* probs_NV, const element* logits_NV, int64 N, int V, int vocab_size) {
  const int SIZE = Pack<element>::SIZE;
  __shared__ float room[64];
  int64 n = row_of_thread();
  if (n >= N) return;
  element* probs_V = probs_NV + n * V;
  const element* logits_V = logits_NV + n * V;
  LogSum row = row_log_sum(logits_V, vocab_size, room);
  float scale = 1.0f / row.total;
  Cut cut = cut_row(probs_V, logits_V, V);
  for (int i = threadIdx.x; i < cut.packs; i += blockDim.x) {
    int v = cut.head + i * SIZE;
    Pack<element> logits = load_pack(logits_V + v);
    float probs[SIZE];
#pragma unroll
    for (int k = 0; k < SIZE; k++) {
      float prob = term(wide(logits.part[k]), row.top) * scale;
      probs[k] = v + k < vocab_size ? prob : 0.0f;
    }
    store_pack(probs_V + v, narrow_pack(probs));
  }
  int ends = cut.head + V - cut.tail;
  for (int e = threadIdx.x; e < ends; e += blockDim.x) {
    int v = e < cut.head ? e : e - cut.head + cut.tail;
    float prob = v < vocab_size ? term(wide(logits_V[v]), row.top) * scale : 0.0f;
    probs_V[v] = narrow<element>(prob);
  }
}

// The sum over a row of probs dprobs, by the threads of the row.
__device__ __forceinline__ float row_dot(const element* probs_V, const element* dprobs_V,
                                         int vocab_size, float* room) {
  const int SIZE = Pack<element>::SIZE;
  Cut cut = cut_row(probs_V, dprobs_V, vocab_size);
  float sum = 0.0f;
  for (int i = threadIdx.x; i < cut.packs; i += blockDim.x) {
    int v = cut.head + i * SIZE;
    Pack<element> probs = load_pack(probs_V + v), dprobs = load_pack(dprobs_V + v);
#pragma unroll
    for (int k = 0; k < SIZE; k++) sum += wide(probs.part[k]) * wide(dprobs.part[k]);
  }
  int ends = cut.head + vocab_size - cut.tail;
  for (int e = threadIdx.x; e < ends; e += blockDim.x) {
    int v = e < cut.head ? e : e - cut.head + cut.tail;
    sum += wide(probs_V[v]) * wide(dprobs_V[v]);
  }
  return row_sum(sum, room);
}

extern "C" __global__ void __launch_bounds__(256)
softmax_backward(element* dlogits_NV, const element* dprobs_NV, const element* probs_NV, int64 N, int V,
                 int vocab_size) {
  const int SIZE = Pack<element>::SIZE;
  __shared__ float room[32];
  int64 n = row_of_thread();
  if (n >= N) return;
  element* dlogits_V = dlogits_NV + n * V;
  const element *dprobs_V = dprobs_NV + n * V, *probs_V = probs_NV + n * V;
  float sum = row_dot(probs_V, dprobs_V, vocab_size, room);
  Cut cut = cut_row(dlogits_V, dprobs_V, V);
  if (cut_row(dlogits_V, probs_V, V).packs != cut.packs) cut = {V, 0, V};
  for (int i = threadIdx.x; i < cut.packs; i += blockDim.x) {
    int v = cut.head + i * SIZE;
    Pack<element> probs = load_pack(probs_V + v), dprobs = load_pack(dprobs_V + v);
    float dlogits[SIZE];
#pragma unroll
    for (int k = 0; k < SIZE; k++) {
      float dlogit = wide(probs.part[k]) * (wide(dprobs.part[k]) - sum);
      dlogits[k] = v + k < vocab_size ? dlogit : 0.0f;
    }
    store_pack(dlogits_V + v, narrow_pack(dlogits));
  }
  int ends = cut.head + V - cut.tail;
  for (int e = threadIdx.x; e < ends; e += blockDim.x) {
    int v = e < cut.head ? e : e - cut.head + cut.tail;
    float dlogit = v < vocab_size ? wide(probs_V[v]) * (wide(dprobs_V[v]) - sum) : 0.0f;
    dlogits_V[v] = narrow<element>(dlogit);
  }
}
