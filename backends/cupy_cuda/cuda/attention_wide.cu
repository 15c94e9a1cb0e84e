// s = q kᵀ / sqrt(D)       lse = log Σ exp(s)       out = Σ exp(s - lse) v        (causal)
//
// Heads wider than a tile, forward and backward (attention_backward.cu has its formulas). A block is a
// warp, and has a row of scores, which it computes again for every WIDTH columns of the result. Slow,
// right, and with nothing that grows with D or T.

#include "common.cuh"

static const int WIDTH = 128;

// A position of one head: where its rows lie, and what is before and after it.
struct Row {
  int64 b, t, h, T, H, D;
  __device__ Row(int64 positions, int64 heads, int64 width) : T(positions), H(heads), D(width) {
    h = blockIdx.x % H;
    t = blockIdx.x / H % T;
    b = blockIdx.x / (H * T);
  }
  __device__ int64 at(int64 t) const { return ((b * T + t) * H + h) * D; }
  __device__ int64 at3(int64 t, int part) const { return (((b * T + t) * 3 + part) * H + h) * D; }
  __device__ int64 stat(int64 t) const { return (b * H + h) * T + t; }
};

__device__ float dot(const element* a_D, const element* b_D, int64 D) {
  float sum = 0.0f;
  for (int64 d = threadIdx.x; d < D; d += 32) sum += wide(a_D[d]) * wide(b_D[d]);
  return warp_sum(sum);
}

// total[k] += factor x[first + k], for the WIDTH columns that the warp has in hand.
__device__ void add(float (&total)[WIDTH / 32], float factor, const element* x_D, int64 first, int64 D) {
  for (int k = 0; k < WIDTH / 32; k++) {
    int64 d = first + 32 * k + threadIdx.x;
    if (d < D) total[k] += factor * wide(x_D[d]);
  }
}

__device__ void store(element* to_D, const float (&total)[WIDTH / 32], float factor, int64 first,
                      int64 D) {
  for (int k = 0; k < WIDTH / 32; k++) {
    int64 d = first + 32 * k + threadIdx.x;
    if (d < D) to_D[d] = narrow<element>(total[k] * factor);
  }
}

extern "C" __global__ void __launch_bounds__(32)
attention_forward_wide(element* out_BTHD, float* lse_BHT, const element* qkv_BT3HD, int T, int H, int D,
                       float scale) {
  Row row(T, H, D);
  const element* q_D = qkv_BT3HD + row.at3(row.t, 0);
  for (int64 first = 0; first < D; first += WIDTH) {
    float top = -INFINITE, sum = 0.0f, out[WIDTH / 32] = {};
    for (int64 j = 0; j <= row.t; j++) {
      float s = dot(q_D, qkv_BT3HD + row.at3(j, 1), D) * scale;
      float higher = fmaxf(top, s), base = higher == -INFINITE ? 0.0f : higher;
      float fade = expf(top - base), p = expf(s - base);
      top = higher;
      sum = sum * fade + p;
      for (int k = 0; k < WIDTH / 32; k++) out[k] *= fade;
      add(out, p, qkv_BT3HD + row.at3(j, 2), first, D);
    }
    store(out_BTHD + row.at(row.t), out, 1.0f / sum, first, D);
    if (first == 0 && threadIdx.x == 0) lse_BHT[row.stat(row.t)] = top + logf(sum);
  }
}

__device__ float probability(float s, float lse) {
  float x = s - lse;
  return expf(x > 0.0f ? 0.0f : x);
}

extern "C" __global__ void __launch_bounds__(32)
attention_backward_keys_wide(element* dqkv_BT3HD, const element* dout_BTHD, const element* qkv_BT3HD,
                             const float* lse_BHT, const float* delta_BHT, int T, int H, int D,
                             float scale) {
  Row row(T, H, D);
  const element *k_D = qkv_BT3HD + row.at3(row.t, 1), *v_D = qkv_BT3HD + row.at3(row.t, 2);
  for (int64 first = 0; first < D; first += WIDTH) {
    float dk[WIDTH / 32] = {}, dv[WIDTH / 32] = {};
    for (int64 i = row.t; i < T; i++) {
      const element *q_D = qkv_BT3HD + row.at3(i, 0), *dout_D = dout_BTHD + row.at(i);
      float p = probability(dot(q_D, k_D, D) * scale, lse_BHT[row.stat(i)]);
      float ds = p * (dot(dout_D, v_D, D) - delta_BHT[row.stat(i)]);
      add(dv, p, dout_D, first, D);
      add(dk, ds, q_D, first, D);
    }
    store(dqkv_BT3HD + row.at3(row.t, 1), dk, scale, first, D);
    store(dqkv_BT3HD + row.at3(row.t, 2), dv, 1.0f, first, D);
  }
}

extern "C" __global__ void __launch_bounds__(32)
attention_backward_queries_wide(element* dqkv_BT3HD, const element* dout_BTHD, const element* qkv_BT3HD,
                                const float* lse_BHT, const float* delta_BHT, int T, int H, int D,
                                float scale) {
  Row row(T, H, D);
  const element *q_D = qkv_BT3HD + row.at3(row.t, 0), *dout_D = dout_BTHD + row.at(row.t);
  float lse = lse_BHT[row.stat(row.t)], delta = delta_BHT[row.stat(row.t)];
  for (int64 first = 0; first < D; first += WIDTH) {
    float dq[WIDTH / 32] = {};
    for (int64 j = 0; j <= row.t; j++) {
      const element *k_D = qkv_BT3HD + row.at3(j, 1), *v_D = qkv_BT3HD + row.at3(j, 2);
      float p = probability(dot(q_D, k_D, D) * scale, lse);
      add(dq, p * (dot(dout_D, v_D, D) - delta), k_D, first, D);
    }
    store(dqkv_BT3HD + row.at3(row.t, 0), dq, scale, first, D);
  }
}
