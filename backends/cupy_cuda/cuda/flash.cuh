// What the flash kernels of attention share: where a head lies, and how a tile of its rows is fetched.
//
// A block has M rows of one head for itself, and goes through the others N at a time. Which numbers a
// tile holds (word), and who multiplies, is tile_fma.cuh or tile_mma.cuh:
//
//     THREADS, ROWS, LANES, STRIDE          threads of a block; rows of a thread; threads that share them
//     Block<C>                              M x C numbers over the threads; at(i, j) is one of this thread
//     row(i), column(j)                     where that one stands in the tile
//     multiply_rows(s_MN, a_MD, b_ND)       s += a bᵀ
//     multiply_columns(o_MD, p_MN, b_ND)    o += p b

// The widest head that fits: 16, 32, 64 or 128. Beyond D a tile holds zeros.
#ifndef D_MAX
#define D_MAX 64
#endif
static const int M = 64, N = D_MAX > 64 ? 32 : 64;

// One head of one sequence. A tile of it is the fastest part of the block's index, so that the blocks in
// flight share their head's rows in the cache.
struct Head {
  int tile, tiles, b, h, H, D;
  __device__ __forceinline__ Head(int T, int heads, int width) : H(heads), D(width) {
    tiles = (T + M - 1) / M;
    tile = blockIdx.x % tiles;
    unsigned bh = blockIdx.x / tiles;
    b = bh / H, h = bh % H;
  }
  // From one position to the next.
  __device__ __forceinline__ int64 step() const { return (int64)H * D; }
  __device__ __forceinline__ int64 step3() const { return 3 * step(); }
  // The row of a position in a tensor BTHD, in BT3HD (part: 0 q, 1 k, 2 v) and in BHT.
  __device__ __forceinline__ int64 at(int T, int t) const {
    return ((int64)b * T + t) * step() + (int64)h * D;
  }
  __device__ __forceinline__ int64 at3(int T, int t, int part) const {
    return ((int64)b * T + t) * step3() + part * step() + (int64)h * D;
  }
  __device__ __forceinline__ int64 stat(int T) const { return ((int64)b * H + h) * T; }
};
