// What a block does with its tiles besides multiplying: fetch, fill, reduce over a row, write.
//
// A tile in memory is rows of D elements, `step` elements apart, of which `rows` are there.

template <int COUNT>
__device__ __forceinline__ void load_tile(word* tile, const element* from, int64 step, int rows, int D) {
  const int SIZE = Pack<element>::SIZE, PACKS = D_MAX / SIZE;
  // A head's row begins at a multiple of 16 bytes if every head's does.
  if (D % SIZE == 0) {
#pragma unroll 2
    for (int i = threadIdx.x; i < COUNT * PACKS; i += THREADS) {
      int r = i / PACKS, d = i % PACKS * SIZE;
      Pack<element> x;
      x.whole = uint4{0, 0, 0, 0};
      if (r < rows && d < D) x = load_pack(from + r * step + d);
      Pack<word> y;
#pragma unroll
      for (int k = 0; k < SIZE; k++) y.part[k] = to_word(wide(x.part[k]));
      store_pack(tile + r * STRIDE + d, y);
    }
  } else {
    for (int i = threadIdx.x; i < COUNT * D_MAX; i += THREADS) {
      int r = i / D_MAX, d = i % D_MAX;
      tile[r * STRIDE + d] = to_word(r < rows && d < D ? wide(from[r * step + d]) : 0.0f);
    }
  }
}

template <int C>
__device__ __forceinline__ void fill(Block<C>& block, float x) {
#pragma unroll
  for (int i = 0; i < ROWS; i++)
#pragma unroll
    for (int j = 0; j < Block<C>::COLUMNS; j++) block.at(i, j) = x;
}

struct alignas(2 * sizeof(element)) Two {
  element left, right;
};

template <int C>
__device__ __forceinline__ void store_block(element* to, int64 step, int rows, int D, Block<C>& block) {
#pragma unroll
  for (int i = 0; i < ROWS; i++) {
    if (row(i) >= rows) continue;
    element* at = to + row(i) * step;
#ifdef TENSOR_CORES
    // A thread has columns in pairs.
    if (D % 2 == 0) {
#pragma unroll
      for (int j = 0; j < Block<C>::COLUMNS; j += 2)
        if (column(j) < D)
          *(Two*)(at + column(j)) = Two{narrow<element>(block.at(i, j)), narrow<element>(block.at(i, j + 1))};
      continue;
    }
#endif
#pragma unroll
    for (int j = 0; j < Block<C>::COLUMNS; j++)
      if (column(j) < D) at[column(j)] = narrow<element>(block.at(i, j));
  }
}

// Over the threads that share a row.
__device__ __forceinline__ float row_max(float x) {
#pragma unroll
  for (int bits = LANES / 2; bits; bits >>= 1) x = fmaxf(x, __shfl_xor_sync(0xffffffffu, x, bits));
  return x;
}
__device__ __forceinline__ float row_sum(float x) {
#pragma unroll
  for (int bits = LANES / 2; bits; bits >>= 1) x += __shfl_xor_sync(0xffffffffu, x, bits);
  return x;
}
