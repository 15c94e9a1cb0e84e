// keys[position + t] = k[t]          s[i,j] = q[i] · keys[j] / sqrt(D)  for j <= position + i
// values[position + t] = v[t]        out[i] = Σ_j softmax(s[i])[j] values[j]
//
// A block has one query of one head. Its warps take 32 keys at a time in turn: a lane has the score of
// one key, then WIDTH / 32 columns of the values. What the warps have is put together at the end, each
// with its own largest score, always in the same order.

#include "common.cuh"

static const int THREADS = 256, WARPS = THREADS / 32, WIDTH = 128;

extern "C" __global__ void attention_decode_store(float* keys_BXHD, float* values_BXHD,
                                                  const element* qkv_BT3HD, const int* position_B,
                                                  int64 count, int T, int X, int C) {
  for (int64 i = thread_index(); i < count; i += thread_count()) {
    int64 n = i / C, c = i % C, b = n / T, t = n % T;
    int64 to = (b * X + position_B[b] + t) * C + c, from = n * 3 * C + c;
    keys_BXHD[to] = wide(qkv_BT3HD[from + C]);
    values_BXHD[to] = wide(qkv_BT3HD[from + 2 * (int64)C]);
  }
}

// The score of one key, in one lane; q is in shared memory.
__device__ __forceinline__ float dot(const float* q_D, const float* key_D, int D) {
  float sum = 0.0f;
  if (D % 4 == 0) {
    for (int d = 0; d < D; d += 4) {
      float4 q = *(const float4*)(q_D + d), k = *(const float4*)(key_D + d);
      sum += q.x * k.x;
      sum += q.y * k.y;
      sum += q.z * k.z;
      sum += q.w * k.w;
    }
  } else {
    for (int d = 0; d < D; d++) sum += q_D[d] * key_D[d];
  }
  return sum;
}

extern "C" __global__ void __launch_bounds__(THREADS, 2)
attention_decode(element* out_BTHD, const float* keys_BXHD, const float* values_BXHD,
                 const element* qkv_BT3HD, const int* position_B, int T, int X, int H, int D,
                 float scale) {
  DYNAMIC_SHARED(float, q_D);
  __shared__ float tops[WARPS], sums[WARPS], parts[WARPS][WIDTH];
  int h = blockIdx.x % H, warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  int64 n = blockIdx.x / H, b = n / T, step = (int64)H * D;
  int seen = position_B[b] + (int)(n % T) + 1;
  const float* keys_XHD = keys_BXHD + b * X * step + (int64)h * D;
  const float* values_XHD = values_BXHD + b * X * step + (int64)h * D;
  for (int d = threadIdx.x; d < D; d += THREADS)
    q_D[d] = wide(qkv_BT3HD[n * 3 * step + (int64)h * D + d]);

  // A head wider than WIDTH goes in pieces, with the scores computed again for each.
  for (int first = 0; first < D; first += WIDTH) {
    __syncthreads();
    float top = -INFINITE, sum = 0.0f, part[WIDTH / 32] = {};
    for (int start = 32 * warp; start < seen; start += THREADS) {
      int j = start + lane, count = min(32, seen - start);
      float s = lane < count ? dot(q_D, keys_XHD + j * step, D) * scale : -INFINITE;
      float higher = fmaxf(top, warp_max(s)), base = higher == -INFINITE ? 0.0f : higher;
      float fade = expf(top - base), p = expf(s - base);
      top = higher;
      sum = sum * fade + warp_sum(p);
      for (int k = 0; k < WIDTH / 32; k++) part[k] *= fade;
      for (int i = 0; i < count; i++) {
        float share = __shfl_sync(0xffffffffu, p, i);
        const float* value_D = values_XHD + (start + i) * step;
#pragma unroll
        for (int k = 0; k < WIDTH / 32; k++) {
          int d = first + 32 * k + lane;
          if (d < D) part[k] += share * value_D[d];
        }
      }
    }
    for (int k = 0; k < WIDTH / 32; k++) parts[warp][32 * k + lane] = part[k];
    if (lane == 0) tops[warp] = top, sums[warp] = sum;
    __syncthreads();
    if (threadIdx.x < WIDTH && first + (int)threadIdx.x < D) {
      float highest = -INFINITE, total = 0.0f, out = 0.0f;
      for (int w = 0; w < WARPS; w++) highest = fmaxf(highest, tops[w]);
      float base = highest == -INFINITE ? 0.0f : highest;
      for (int w = 0; w < WARPS; w++) {
        float share = expf(tops[w] - base);
        total += share * sums[w];
        out += share * parts[w][threadIdx.x];
      }
      out_BTHD[n * step + (int64)h * D + first + threadIdx.x] = narrow<element>(out / total);
    }
  }
}
