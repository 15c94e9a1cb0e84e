// out[n,o] = y[n,o] + scale · Σ_r low[n,r] · weight(r, o - first)   where first <= o < first + S, else y[n,o]
//
// What a low-rank pair adds, out of float32 numbers low[n,r] that were not rounded. A block does whole
// rows. A row of low is short: the block takes it into shared memory, and every thread reads all of it.

#include "common.cuh"

// weight(r, s) = weight[s · stride_s + r · stride_r]. y may be null, which is 0, and may be out's memory.
// kept is low as elements, or null. Shared memory: R floats.
extern "C" __global__ void low_rank_add(element* out_NO, element* kept_NR, const element* y_NO,
                                        const float* low_NR, const element* weight, int64 N, int64 O,
                                        int R, int64 S, int64 first, int64 stride_s, int64 stride_r,
                                        float scale) {
  DYNAMIC_SHARED(float, low_R);
  bool copies = y_NO != out_NO;
  for (int64 n = blockIdx.x; n < N; n += gridDim.x) {
    __syncthreads();  // the row before is read
    for (int r = threadIdx.x; r < R; r += blockDim.x) {
      low_R[r] = low_NR[n * R + r];
      if (kept_NR) kept_NR[n * R + r] = narrow<element>(low_R[r]);
    }
    __syncthreads();
    for (int64 o = threadIdx.x; o < O; o += blockDim.x) {
      int64 s = o - first;
      if (s < 0 || s >= S) {
        if (copies) out_NO[n * O + o] = y_NO ? y_NO[n * O + o] : narrow<element>(0.0f);
        continue;
      }
      float sum = 0.0f;
      for (int r = 0; r < R; r++) sum += low_R[r] * wide(weight[s * stride_s + r * stride_r]);
      float y = y_NO ? wide(y_NO[n * O + o]) : 0.0f;
      out_NO[n * O + o] = narrow<element>(y + scale * sum);
    }
  }
}

extern "C" __global__ void copy(element* out_P, const element* x_P, int64 P) {
  const int SIZE = Pack<element>::SIZE;
  int64 whole = P / SIZE;
  for (int64 i = thread_index(); i < whole; i += thread_count())
    store_pack(out_P + i * SIZE, load_pack(x_P + i * SIZE));
  int64 i = whole * SIZE + thread_index();
  if (i < P) out_P[i] = x_P[i];
}

// out = x as float.
extern "C" __global__ void widen(float* out_P, const element* x_P, int64 P) {
  const int SIZE = Pack<element>::SIZE;
  int64 whole = P / SIZE;
  for (int64 i = thread_index(); i < whole; i += thread_count()) {
    Pack<element> x = load_pack(x_P + i * SIZE);
    for (int part = 0; part < SIZE; part += 4) {
      Pack<float> out;
      for (int k = 0; k < 4; k++) out.part[k] = wide(x.part[part + k]);
      store_pack(out_P + i * SIZE + part, out);
    }
  }
  int64 i = whole * SIZE + thread_index();
  if (i < P) out_P[i] = wide(x_P[i]);
}
