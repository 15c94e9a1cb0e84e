// Rows over threads: blockDim.x threads (whole warps) have a row, and a block has blockDim.y rows.
//
// A block has more than one row only where a warp has a row, unless its kernel says how it keeps them in
// step: row_sum and row_log_sum wait for the whole block where a row has more than one warp.

#include "common.cuh"
#include "exp2.cuh"

#define LOWEST -3.402823466e38f

// exp(a - b), for terms of a sum whose largest is 1. The difference is taken first: of two numbers that
// are large it is exact, or nearly.
__device__ __forceinline__ float term(float a, float b) { return exp2_or_zero((a - b) * LOG2_E); }

// A pack of numbers, rounded to the elements' type: two at a time where that is bf16.
__device__ __forceinline__ Pack<float> narrow_pack(const float (&x)[4]) {
  Pack<float> pack;
#pragma unroll
  for (int k = 0; k < 4; k++) pack.part[k] = x[k];
  return pack;
}
__device__ __forceinline__ Pack<bf16> narrow_pack(const float (&x)[8]) {
  Pack<bf16> pack;
#ifdef CUDA_ON_CPU
  for (int k = 0; k < 8; k++) pack.part[k] = to_bf16(x[k]);
#else
  unsigned pair[4];
#pragma unroll
  for (int k = 0; k < 4; k++)
    asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(pair[k]) : "f"(x[2 * k + 1]), "f"(x[2 * k]));
  pack.whole = {pair[0], pair[1], pair[2], pair[3]};
#endif
  return pack;
}

__device__ __forceinline__ int64 row_of_thread() { return (int64)blockIdx.x * blockDim.y + threadIdx.y; }

// The sum over the threads of a row, in each of them; the order of addition is fixed.
// room: 32 floats that no thread has used since the last barrier but one of this block.
__device__ __forceinline__ float row_sum(float x, float* room) {
  x = warp_sum(x);
  if (blockDim.x == 32) return x;
  int warps = blockDim.x / 32, lane = threadIdx.x % 32;
  float* of_row = room + threadIdx.y * warps;
  if (lane == 0) of_row[threadIdx.x / 32] = x;
  __syncthreads();
  return warp_sum(lane < warps ? of_row[lane] : 0.0f);
}

// Two such sums at once. room: 64 floats.
__device__ __forceinline__ void row_sums(float& x, float& y, float* room) {
  x = warp_sum(x), y = warp_sum(y);
  if (blockDim.x == 32) return;
  int warps = blockDim.x / 32, lane = threadIdx.x % 32;
  float* of_row = room + threadIdx.y * warps;
  if (lane == 0) of_row[threadIdx.x / 32] = x, of_row[32 + threadIdx.x / 32] = y;
  __syncthreads();
  x = warp_sum(lane < warps ? of_row[lane] : 0.0f);
  y = warp_sum(lane < warps ? of_row[32 + lane] : 0.0f);
}

// A row of `count` elements that begins anywhere: [0, head) and [tail, count) are taken one by one, and
// between them lie `packs` packs of 16 bytes. Where two rows do not begin alike, all is head.
struct Cut {
  int head, packs, tail;
};
__device__ __forceinline__ Cut cut_row(const element* row, const element* other, int count) {
  const int SIZE = Pack<element>::SIZE;
  unsigned long long start = (unsigned long long)row, beside = (unsigned long long)other;
  int head = (int)((16 - start % 16) % 16 / sizeof(element));
  if ((start ^ beside) % 16 || head > count) head = count;
  Cut cut = {head, (count - head) / SIZE, 0};
  cut.tail = head + cut.packs * SIZE;
  return cut;
}

// The sum of exp(x - top) over what a thread has seen, with top the largest of it. Begins at the lowest
// finite number and not at -infinity, which less itself is NaN. A NaN passes by top and enters the sum.
struct LogSum {
  float top, total;
};

template <int COUNT>
__device__ __forceinline__ void take(LogSum& seen, const float (&x)[COUNT]) {
  float top = seen.top, total = 0.0f;
#pragma unroll
  for (int k = 0; k < COUNT; k++) top = fmaxf(top, x[k]);
#pragma unroll
  for (int k = 0; k < COUNT; k++) total += term(x[k], top);
  seen.total = seen.total * term(seen.top, top) + total;
  seen.top = top;
}

// PACKS packs that lie `stride` packs apart: all are asked for before the first is used.
template <int PACKS>
__device__ __forceinline__ void take_packs(LogSum& seen, const element* from, int stride) {
  const int SIZE = Pack<element>::SIZE;
  Pack<element> pack[PACKS];
#pragma unroll
  for (int j = 0; j < PACKS; j++) pack[j] = load_pack(from + (int64)j * stride * SIZE);
  float x[PACKS * SIZE];
#pragma unroll
  for (int j = 0; j < PACKS; j++)
#pragma unroll
    for (int k = 0; k < SIZE; k++) x[j * SIZE + k] = wide(pack[j].part[k]);
  take(seen, x);
}

__device__ __forceinline__ void merge_warp(LogSum& seen) {
  float top = warp_max(seen.top);
  seen.total = warp_sum(seen.total * term(seen.top, top));
  seen.top = top;
}

// Of the first `count` elements of a row, in every thread of it: one pass.
// room: 64 floats of shared memory that no thread has used before.
__device__ __forceinline__ LogSum row_log_sum(const element* row, int count, float* room) {
  const int SIZE = Pack<element>::SIZE;
  int threads = blockDim.x, me = threadIdx.x;
  Cut cut = cut_row(row, row, count);
  LogSum seen = {LOWEST, 0.0f};
  int i = me;
  for (; i + 3 * threads < cut.packs; i += 4 * threads)
    take_packs<4>(seen, row + cut.head + i * SIZE, threads);
  for (; i < cut.packs; i += threads) take_packs<1>(seen, row + cut.head + i * SIZE, threads);
  int ends = cut.head + count - cut.tail;
  for (int e = me; e < ends; e += threads) {
    float x[1] = {wide(row[e < cut.head ? e : e - cut.head + cut.tail])};
    take(seen, x);
  }
  merge_warp(seen);
  if (threads == 32) return seen;
  int warps = threads / 32, lane = me % 32;
  if (lane == 0) room[me / 32] = seen.top, room[32 + me / 32] = seen.total;
  __syncthreads();
  seen.top = lane < warps ? room[lane] : LOWEST;
  seen.total = lane < warps ? room[32 + lane] : 0.0f;
  merge_warp(seen);
  return seen;
}
