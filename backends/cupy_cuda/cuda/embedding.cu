// out[n] = wte[tokens[n]] + wpe[x],  x = position[b] + t  of row n = b T + t
//
// Backward, a table's row is the sum of the rows of dout that looked it up, always added in the same
// order, and without atomics.
//
// dwpe asks the other way round: row x takes, of each sequence b, the row at t = x - position[b].
//
// dwte sorts first. A key is a token and the number of its row, token in the high half: keys are all
// different, and in their order the rows of one token (a run) follow each other as in the text.
//
//     1  sort_chunks    each block sorts a chunk of keys in shared memory (bitonic)
//     2  merge_chunks   a key's place is how many keys are less: its own place in its chunk, and one
//                       binary search in each other chunk; no launch needs another's result but this
//     3  sum_tiles      each block goes through TILE sorted keys and adds up the rows of dout. A run
//                       within its tile goes to the table; of a run that crosses an edge the tile's
//                       part is kept: edges[tile][0] of one that began before, [1] of one that goes on
//     4  join_tiles     the block of the tile where a crossing run begins adds its parts, in order
//
// So a token that stands in every row is the work of all blocks, and its parts of one block.
// A thread has WIDTH columns: 4, or 1 where C is no multiple of 4.

#include "common.cuh"
#include "quads.cuh"

#ifndef WIDTH
#define WIDTH 4
#endif
#define TILE 32
#define BATCH 4  // rows that a thread has in flight
#define SHARE 8  // threads that look for the place of one key
#define LAST 0x7FFFFFFFFFFFFFFFll

#if WIDTH == 4
typedef Quad Columns;
template <class T> __device__ __forceinline__ Columns load(const T* from) { return load_quad(from); }
template <class T> __device__ __forceinline__ void store(T* to, const Columns& x) { store_quad(to, x); }
#else
struct Columns {
  float part[1];
};
template <class T> __device__ __forceinline__ Columns load(const T* from) {
  Columns x = {{wide(*from)}};
  return x;
}
template <class T> __device__ __forceinline__ void store(T* to, const Columns& x) {
  *to = narrow<T>(x.part[0]);
}
#endif

__device__ __forceinline__ Columns nothing() {
  Columns zero;
  for (int k = 0; k < WIDTH; k++) zero.part[k] = 0.0f;
  return zero;
}
__device__ __forceinline__ void add(Columns& sum, const Columns& x) {
  for (int k = 0; k < WIDTH; k++) sum.part[k] += x.part[k];
}
// Overwrite, or add to.
__device__ __forceinline__ void put(float* to, Columns sum, int accumulate) {
  if (accumulate) add(sum, load(to));
  store(to, sum);
}

// The first of a thread's columns, where the blocks of the grid's second extent share the columns.
__device__ __forceinline__ int column() { return (blockIdx.y * blockDim.x + threadIdx.x) * WIDTH; }

// A warp for each row.
extern "C" __global__ void embedding_forward(element* __restrict__ out_NC, const int* tokens_N,
                                             const int* position_B,
                                             const element* __restrict__ wte_VC,
                                             const element* __restrict__ wpe_XC, int N, int T,
                                             int C) {
  for (int n = (int)(thread_index() / 32); n < N; n += (int)(thread_count() / 32)) {
    int x = position_B[n / T] + n % T;
    element* out_C = out_NC + (int64)n * C;
    const element* token_C = wte_VC + (int64)tokens_N[n] * C;
    const element* place_C = wpe_XC + (int64)x * C;
#pragma unroll 2
    for (int c = threadIdx.x % 32 * WIDTH; c < C; c += 32 * WIDTH) {
      Columns sum = load(token_C + c);
      add(sum, load(place_C + c));
      store(out_C + c, sum);
    }
  }
}

__device__ __forceinline__ int token_of(int64 key) { return (int)(key >> 32); }
__device__ __forceinline__ int row_of(int64 key) { return (int)(key & 0x7FFFFFFF); }

// Sort the keys of each chunk by chunk / 2 threads; chunk is a power of two. Beyond N: LAST.
extern "C" __global__ void sort_chunks(int64* keys_N, const int* tokens_N, int N, int chunk) {
  DYNAMIC_SHARED(int64, keys);
  int64 start = (int64)blockIdx.x * chunk;
  for (int i = threadIdx.x; i < chunk; i += blockDim.x) {
    int64 n = start + i;
    keys[i] = n < N ? (int64)tokens_N[n] << 32 | n : LAST;
  }
  for (int run = 2; run <= chunk; run *= 2)
    for (int apart = run / 2; apart; apart /= 2) {
      __syncthreads();
      int left = 2 * threadIdx.x - (threadIdx.x & (apart - 1)), right = left + apart;
      bool upwards = (left & run) == 0;
      int64 a = keys[left], b = keys[right];
      if ((a > b) == upwards) {
        keys[left] = b;
        keys[right] = a;
      }
    }
  __syncthreads();
  for (int i = threadIdx.x; i < chunk; i += blockDim.x) keys_N[start + i] = keys[i];
}

// How many keys of a sorted chunk are less than this one.
__device__ __forceinline__ int count_less(const int64* keys, int chunk, int64 key) {
  int less = 0;
  for (int step = chunk / 2; step; step /= 2)
    if (keys[less + step - 1] < key) less += step;
  return less + (keys[less] < key);
}

extern "C" __global__ void merge_chunks(int64* sorted_N, const int64* __restrict__ keys_N, int N,
                                        int chunk, int chunks) {
  int i = (int)(thread_index() / SHARE), lane = threadIdx.x % SHARE;
  int own = min(i, N - 1) / chunk, less = 0;
  int64 key = keys_N[min(i, N - 1)];
  for (int other = lane; other < chunks; other += SHARE)
    if (other != own) less += count_less(keys_N + (int64)other * chunk, chunk, key);
  for (int bits = SHARE / 2; bits; bits /= 2) less += __shfl_xor_sync(0xffffffffu, less, bits);
  if (i < N && lane == 0) sorted_N[i % chunk + less] = key;
}

// The part of edges_K2C that tile k writes at `goes_on`, and join_tiles reads.
__device__ __forceinline__ int64 edge(int tile, int goes_on, int C) {
  return ((int64)tile * 2 + goes_on) * C;
}

extern "C" __global__ void __launch_bounds__(256)
    sum_tiles(float* dwte_VC, float* edges_K2C, const int64* sorted_N,
              const element* __restrict__ dout_NC, int N, int C, int accumulate) {
  __shared__ int64 around[TILE + 2];  // the tile's keys, and one on either side
  int64* keys = around + 1;
  int start = blockIdx.x * TILE, count = min(TILE, N - start), c = column();
  for (int i = (int)threadIdx.x - 1; i <= count; i += blockDim.x)
    keys[i] = 0 <= start + i && start + i < N ? sorted_N[start + i] : -1;  // -1: of no token
  __syncthreads();
  if (c >= C) return;

  bool began_before = token_of(keys[-1]) == token_of(keys[0]);
  Columns sum = nothing();
  for (int first = 0; first < count; first += BATCH) {
    Columns rows[BATCH];
#pragma unroll
    for (int k = 0; k < BATCH; k++) {
      int row = row_of(keys[min(first + k, count - 1)]);
      rows[k] = load(dout_NC + (int64)row * C + c);
    }
#pragma unroll
    for (int k = 0; k < BATCH; k++) {
      int i = first + k;
      if (i >= count) break;
      add(sum, rows[k]);
      int token = token_of(keys[i]);
      bool goes_on = token_of(keys[i + 1]) == token;
      if (goes_on && i + 1 < count) continue;
      if (began_before || goes_on)
        store(edges_K2C + edge(blockIdx.x, !began_before, C) + c, sum);
      else
        put(dwte_VC + (int64)token * C + c, sum, accumulate);
      began_before = false;
      sum = nothing();
    }
  }
}

extern "C" __global__ void join_tiles(float* dwte_VC, const float* __restrict__ edges_K2C,
                                      const int64* sorted_N, int N, int C, int accumulate) {
  int tile = blockIdx.x, start = tile * TILE, stop = start + TILE, c = column();
  int token = token_of(sorted_N[stop - 1]);
  bool began_before = start > 0 && token_of(sorted_N[start - 1]) == token;
  bool goes_on = token_of(sorted_N[stop]) == token;
  if (began_before || !goes_on || c >= C) return;

  // The last tile that begins with this token.
  int last = tile + 1, beyond = (N + TILE - 1) / TILE;
  while (beyond - last > 1) {
    int middle = last + (beyond - last) / 2;
    if (token_of(sorted_N[middle * TILE]) == token)
      last = middle;
    else
      beyond = middle;
  }
  Columns sum = load(edges_K2C + edge(tile, 1, C) + c);
#pragma unroll 8
  for (int k = tile + 1; k <= last; k++) add(sum, load(edges_K2C + edge(k, 0, C) + c));
  put(dwte_VC + (int64)token * C + c, sum, accumulate);
}

// A block for each position. The rows are loaded before it is known whether they are wanted.
extern "C" __global__ void sum_positions(float* dwpe_XC, const element* __restrict__ dout_BTC,
                                         const int* __restrict__ position_B, int B, int T, int C,
                                         int accumulate) {
  int x = blockIdx.x, c = column();
  if (c >= C) return;
  Columns sum = nothing();
  bool used = false;
#pragma unroll 4
  for (int b = 0; b < B; b++) {
    int t = x - position_B[b], within = min(max(t, 0), T - 1);
    Columns row = load(dout_BTC + ((int64)b * T + within) * C + c);
    for (int k = 0; k < WIDTH; k++) sum.part[k] += t == within ? row.part[k] : 0.0f;
    used = used || t == within;
  }
  if (used || !accumulate) put(dwpe_XC + (int64)x * C + c, sum, accumulate);
}
