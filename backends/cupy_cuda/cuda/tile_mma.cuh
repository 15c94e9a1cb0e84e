// Products of tiles on tensor cores: of bfloat16 (m16n8k16), or of float32 rounded to TF32 (m16n8k8).
//
// A warp has 16 rows. What a product leaves in a thread's registers is what the next one wants as its
// left factor, so probabilities never pass through memory. In TF32 that holds if the pairs of columns
// (2t, 2t+1) are taken as the columns t and t+4 of the instruction: a sum may go in any order.

#define THREADS 128
#define ROWS 2
#define LANES 4
// Blocks of a multiprocessor, for which there must be registers: of the forward, and of the backward.
#define BLOCKS 3
#define BLOCKS_BACKWARD 3
#define BLOCKS_KEYS 2
#ifdef TF32
#define K_STEP 8
typedef unsigned word;
__device__ __forceinline__ word to_word(float x) { return to_tf32(x); }
#else
#define K_STEP 16
typedef bf16 word;
__device__ __forceinline__ word to_word(float x) { return to_bf16(x); }
#endif
#define STRIDE (D_MAX + 8)
#define ROOM 0

__device__ __forceinline__ int group() { return threadIdx.x % 32 / 4; }
__device__ __forceinline__ int pair() { return threadIdx.x % 4 * 2; }
__device__ __forceinline__ int row(int i) { return threadIdx.x / 32 * 16 + group() + 8 * i; }
__device__ __forceinline__ int column(int j) { return j / 2 * 8 + pair() + j % 2; }

template <int C>
struct Block {
  static const int COLUMNS = C / 4;
  float part[C / 8][4];
  __device__ __forceinline__ float& at(int i, int j) { return part[j / 2][2 * i + j % 2]; }
};

#ifdef TF32

__device__ __forceinline__ void multiply(float (&d)[4], const unsigned (&a)[4],
                                         const unsigned (&b)[2]) {
  mma_tf32(d, a, b);
}

// 16 rows of K_STEP numbers as the left factor.
__device__ __forceinline__ void load_left(unsigned (&a)[4], const word* tile) {
  uint2 upper = *(const uint2*)(tile + group() * STRIDE + pair());
  uint2 lower = *(const uint2*)(tile + (group() + 8) * STRIDE + pair());
  a[0] = upper.x, a[1] = lower.x, a[2] = upper.y, a[3] = lower.y;
}

// 16 rows of K_STEP numbers as two right factors, transposed: a row of the tile is a column of them.
__device__ __forceinline__ void load_rows(unsigned (&b)[2][2], const word* tile) {
#pragma unroll
  for (int k = 0; k < 2; k++) {
    uint2 two = *(const uint2*)(tile + (8 * k + group()) * STRIDE + pair());
    b[k][0] = two.x, b[k][1] = two.y;
  }
}

// K_STEP rows of 16 numbers as two right factors.
__device__ __forceinline__ void load_columns(unsigned (&b)[2][2], const word* tile) {
#pragma unroll
  for (int k = 0; k < 2; k++) {
    b[k][0] = tile[pair() * STRIDE + 8 * k + group()];
    b[k][1] = tile[(pair() + 1) * STRIDE + 8 * k + group()];
  }
}

__device__ __forceinline__ void as_left(unsigned (&a)[4], Block<N>& p_MN, int k) {
  float(&p)[4] = p_MN.part[k / 8];
  a[0] = to_tf32(p[0]), a[1] = to_tf32(p[2]), a[2] = to_tf32(p[1]), a[3] = to_tf32(p[3]);
}

#else

__device__ __forceinline__ void multiply(float (&d)[4], const unsigned (&a)[4],
                                         const unsigned (&b)[2]) {
  mma_bf16(d, a, b);
}

// The four 8 x 8 corners of a 16 x 16 tile, two numbers of each to a thread: upper left, lower left,
// upper right, lower right; each corner transposed if asked.
__device__ __forceinline__ void load_corners(unsigned (&r)[4], const word* tile, bool transposed) {
#ifdef CUDA_ON_CPU
  for (int k = 0; k < 4; k++) {
    const word* corner = tile + k % 2 * 8 * STRIDE + k / 2 * 8;
    r[k] = transposed
               ? pack_bf16(corner[pair() * STRIDE + group()], corner[(pair() + 1) * STRIDE + group()])
               : pack_bf16(corner[group() * STRIDE + pair()], corner[group() * STRIDE + pair() + 1]);
  }
#else
  int lane = threadIdx.x % 32;
  unsigned address = (unsigned)__cvta_generic_to_shared(tile + lane % 16 * STRIDE + lane / 16 * 8);
  if (transposed)
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"(address)
                 : "memory");
  else
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"(address)
                 : "memory");
#endif
}

__device__ __forceinline__ void load_left(unsigned (&a)[4], const word* tile) {
  load_corners(a, tile, false);
}
__device__ __forceinline__ void load_rows(unsigned (&b)[2][2], const word* tile) {
  unsigned r[4];
  load_corners(r, tile, false);
  b[0][0] = r[0], b[0][1] = r[2], b[1][0] = r[1], b[1][1] = r[3];
}
__device__ __forceinline__ void load_columns(unsigned (&b)[2][2], const word* tile) {
  unsigned r[4];
  load_corners(r, tile, true);
  b[0][0] = r[0], b[0][1] = r[1], b[1][0] = r[2], b[1][1] = r[3];
}

__device__ __forceinline__ void as_left(unsigned (&a)[4], Block<N>& p_MN, int k) {
  float(&left)[4] = p_MN.part[k / 8], (&right)[4] = p_MN.part[k / 8 + 1];
  a[0] = pack_bf16(left[0], left[1]), a[1] = pack_bf16(left[2], left[3]);
  a[2] = pack_bf16(right[0], right[1]), a[3] = pack_bf16(right[2], right[3]);
}

#endif

__device__ __forceinline__ void multiply_rows(Block<N>& s_MN, const word* a_MD, const word* b_ND) {
  const word* a_16D = a_MD + threadIdx.x / 32 * 16 * STRIDE;
#pragma unroll
  for (int d = 0; d < D_MAX; d += K_STEP) {
    unsigned a[4], b[2][2];
    load_left(a, a_16D + d);
#pragma unroll
    for (int n = 0; n < N; n += 16) {
      load_rows(b, b_ND + n * STRIDE + d);
      multiply(s_MN.part[n / 8], a, b[0]);
      multiply(s_MN.part[n / 8 + 1], a, b[1]);
    }
  }
}

__device__ __forceinline__ void multiply_columns(Block<D_MAX>& o_MD, Block<N>& p_MN,
                                                 const word* b_ND, float*) {
#pragma unroll
  for (int n = 0; n < N; n += K_STEP) {
    unsigned a[4], b[2][2];
    as_left(a, p_MN, n);
#pragma unroll
    for (int d = 0; d < D_MAX; d += 16) {
      load_columns(b, b_ND + n * STRIDE + d);
      multiply(o_MD.part[d / 8], a, b[0]);
      multiply(o_MD.part[d / 8 + 1], a, b[1]);
    }
  }
}
