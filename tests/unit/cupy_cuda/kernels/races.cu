// Kernels that are wrong in the ways that kernels are, each beside the right one. N: threads of a block.

#include "common.cuh"

#define N 256

// -- sums over a block by a tree --------------------------------------------------------------------

extern "C" __global__ void tree(float* sum_B, const float* x_BN) {
  __shared__ float sums[N];
  sums[threadIdx.x] = x_BN[blockIdx.x * N + threadIdx.x];
  __syncthreads();
  for (int half = N / 2; half; half /= 2) {
    if (threadIdx.x < half) sums[threadIdx.x] += sums[threadIdx.x + half];
    __syncthreads();
  }
  if (threadIdx.x == 0) sum_B[blockIdx.x] = sums[0];
}

extern "C" __global__ void tree_without_a_barrier(float* sum_B, const float* x_BN) {
  __shared__ float sums[N];
  sums[threadIdx.x] = x_BN[blockIdx.x * N + threadIdx.x];
  __syncthreads();
  for (int half = N / 2; half; half /= 2)
    if (threadIdx.x < half) sums[threadIdx.x] += sums[threadIdx.x + half];
  __syncthreads();
  if (threadIdx.x == 0) sum_B[blockIdx.x] = sums[0];
}

extern "C" __global__ void tree_that_begins_early(float* sum_B, const float* x_BN) {
  __shared__ float sums[N];
  sums[threadIdx.x] = x_BN[blockIdx.x * N + threadIdx.x];
  for (int half = N / 2; half; half /= 2) {
    if (threadIdx.x < half) sums[threadIdx.x] += sums[threadIdx.x + half];
    __syncthreads();
  }
  if (threadIdx.x == 0) sum_B[blockIdx.x] = sums[0];
}

// The last stages without barriers, as was written when warps ran in lock step.
extern "C" __global__ void tree_in_lock_step(float* sum_B, const float* x_BN) {
  __shared__ volatile float sums[N];
  sums[threadIdx.x] = x_BN[blockIdx.x * N + threadIdx.x];
  __syncthreads();
  for (int half = N / 2; half > 16; half /= 2) {
    if (threadIdx.x < half) sums[threadIdx.x] += sums[threadIdx.x + half];
    __syncthreads();
  }
  if (threadIdx.x < 16)
    for (int half = 16; half; half /= 2) sums[threadIdx.x] += sums[threadIdx.x + half];
  if (threadIdx.x == 0) sum_B[blockIdx.x] = sums[0];
}

// -- sums over a warp by shuffles -------------------------------------------------------------------

extern "C" __global__ void shuffled(float* sum_B, const float* x_BN) {
  float x = warp_sum(x_BN[blockIdx.x * blockDim.x + threadIdx.x]);
  if (threadIdx.x == 0) sum_B[blockIdx.x] = x;
}

// One stage too few: half the warp is not added.
extern "C" __global__ void shuffled_one_short(float* sum_B, const float* x_BN) {
  float x = x_BN[blockIdx.x * blockDim.x + threadIdx.x];
  for (int bits = 16; bits > 1; bits >>= 1) x += __shfl_xor_sync(0xffffffffu, x, bits);
  if (threadIdx.x == 0) sum_B[blockIdx.x] = x;
}

// Lanes that left are still read.
extern "C" __global__ void shuffled_after_some_left(float* sum_B, const float* x_BN) {
  if (threadIdx.x >= 24) return;
  float x = warp_sum(x_BN[blockIdx.x * blockDim.x + threadIdx.x]);
  if (threadIdx.x == 0) sum_B[blockIdx.x] = x;
}

extern "C" __global__ void shuffled_in_two_places(float* sum_B, const float* x_BN) {
  float x = x_BN[threadIdx.x];
  if (threadIdx.x % 2)
    x = __shfl_xor_sync(0xffffffffu, x, 1);
  else
    x = __shfl_xor_sync(0xffffffffu, x, 3);
  sum_B[0] = x;
}

extern "C" __global__ void shuffled_outside_its_mask(float* sum_B, const float* x_BN) {
  sum_B[0] = __shfl_sync(0x0000ffffu, x_BN[threadIdx.x], 0);
}

// Each half by itself, many times, then all: halves run at different speeds.
extern "C" __global__ void shuffled_by_halves(float* sum_B, const float* x_BN) {
  float x = x_BN[blockIdx.x * 32 + threadIdx.x];
  unsigned mask = threadIdx.x < 16 ? 0x0000ffffu : 0xffff0000u;
  if (threadIdx.x >= 16) x = __shfl_xor_sync(mask, x, 1);
  for (int bits = 8; bits; bits >>= 1) x += __shfl_xor_sync(mask, x, bits);
  x += __shfl_xor_sync(0xffffffffu, x, 16);
  if (threadIdx.x == 0) sum_B[blockIdx.x] = x;
}

// -- shared memory, barriers ------------------------------------------------------------------------

template <class T>
__device__ T* shared_room() {
  __shared__ T room[N + 1];
  return room;
}

extern "C" __global__ void reads_what_nobody_wrote(float* out_N) {
  float* room = shared_room<float>();
  room[threadIdx.x] = 1.0f;
  __syncthreads();
  out_N[threadIdx.x] = room[threadIdx.x + 1];
}

extern "C" __global__ void reads_dynamic_that_nobody_wrote(float* out_N) {
  DYNAMIC_SHARED(float, room);
  room[threadIdx.x] = 1.0f;
  __syncthreads();
  out_N[threadIdx.x] = room[threadIdx.x + 1];
}

// What a block leaves in shared memory is not what the next one finds.
extern "C" __global__ void counts_blocks(float* out_B) {
  __shared__ float room[1];
  if (blockIdx.x == 0) room[0] = 1.0f;
  __syncthreads();
  if (threadIdx.x == 0) out_B[blockIdx.x] = room[0];
}

extern "C" __global__ void all_write_one(float* out_B) { out_B[0] = threadIdx.x; }
extern "C" __global__ void blocks_write_one(float* out_B) { out_B[0] = blockIdx.x; }

extern "C" __global__ void half_waits(float* out_N) {
  if (threadIdx.x < N / 2) __syncthreads();
  else __syncwarp();
  if (threadIdx.x >= N / 2) __syncthreads();
  out_N[threadIdx.x] = 1.0f;
}

extern "C" __global__ void warp_waits_for_those_at_a_block_barrier(float* out_N) {
  if (threadIdx.x == 0) __syncthreads();
  else __syncwarp();
  out_N[threadIdx.x] = 1.0f;
}

// Right on Volta and later: a barrier waits for the threads that have not ended.
extern "C" __global__ void some_leave_early(float* out_N) {
  __shared__ float room[N];
  room[threadIdx.x] = threadIdx.x;
  if (threadIdx.x >= N / 2) return;
  __syncthreads();
  out_N[threadIdx.x] = room[N / 2 - 1 - threadIdx.x];
}

// -- votes, arguments ---------------------------------------------------------------------------------

extern "C" __global__ void votes(int* count_3, unsigned* ballot_W, int* any_all_2W, int least) {
  bool yes = threadIdx.x >= least;
  int number = __syncthreads_count(yes), all = __syncthreads_and(yes), any = __syncthreads_or(yes);
  unsigned ballot = __ballot_sync(0xffffffffu, yes);
  int warp_any = __any_sync(0xffffffffu, yes), warp_all = __all_sync(0xffffffffu, yes);
  if (threadIdx.x == 0) count_3[0] = number, count_3[1] = all, count_3[2] = any;
  if (threadIdx.x % 32) return;
  ballot_W[threadIdx.x / 32] = ballot;
  any_all_2W[threadIdx.x / 32 * 2] = warp_any, any_all_2W[threadIdx.x / 32 * 2 + 1] = warp_all;
}

extern "C" __global__ void taken(float* out_1, int i, int64 l, float f) { out_1[0] = i + l + f; }

extern "C" __global__ void index_of_each(int* out_P) {
  unsigned block = blockIdx.x + gridDim.x * (blockIdx.y + gridDim.y * blockIdx.z);
  unsigned thread = threadIdx.x + blockDim.x * (threadIdx.y + blockDim.y * threadIdx.z);
  out_P[block * (blockDim.x * blockDim.y * blockDim.z) + thread] += block * 1000 + thread;
}

extern "C" __global__ void half_of(float* out_1, const float* x_1) { out_1[0] = x_1[0] * 0.5f; }
extern "C" __global__ void trapped(float* out_1) {
  if (threadIdx.x == 40) __trap();
}

extern "C" __global__ void __launch_bounds__(N / 2, 1) bounded(float* out_1) { out_1[0] = 1.0f; }

// Arrays whose size the compiler knows: one of a thread, one of the block, and one that ends a struct.

extern "C" __global__ void local_array(float* out, int n) {
  float x[4];
  for (int k = 0; k < n; k++) x[k] = k;
  out[0] = x[3];
}

extern "C" __global__ void shared_array(float* out, int n) {
  __shared__ float room[4];
  if (threadIdx.x < n) room[threadIdx.x] = threadIdx.x;
  __syncthreads();
  out[0] = room[3];
}

extern "C" __global__ void pack_of_numbers(float* out, int n) {
  Pack<float> pack;
  for (int k = 0; k < n; k++) pack.part[k] = k;
  out[0] = pack.part[3];
}
