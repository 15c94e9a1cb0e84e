// Products of tiles in float32, by fused multiply-adds: a thread has 4 rows, and every 16th column.

#define THREADS 256
#define ROWS 4
#define LANES 16
// Blocks of a multiprocessor, for which there must be registers: of the forward, and of the backward.
#define BLOCKS 2
#define BLOCKS_BACKWARD (D_MAX > 64 ? 1 : 2)
#define BLOCKS_KEYS (D_MAX > 64 || D_MAX == 32 ? 1 : 2)  // at 32 two would spill
typedef float word;
__device__ __forceinline__ word to_word(float x) { return x; }

// Rows begin four banks apart: eight threads that read 16 bytes of eight rows meet no conflict.
#define STRIDE (D_MAX + 4)
#define ROOM_STRIDE (N + 4)
// Bytes of shared memory for a block's numbers on their way from columns to rows: see multiply_columns.
#define ROOM (M * ROOM_STRIDE)

__device__ __forceinline__ int row(int i) { return threadIdx.x / 16 * 4 + i; }
__device__ __forceinline__ int column(int j) { return threadIdx.x % 16 + 16 * j; }

template <int C>
struct Block {
  static const int COLUMNS = C / 16;
  float part[4][C / 16];
  __device__ __forceinline__ float& at(int i, int j) { return part[i][j]; }
};

__device__ __forceinline__ float4 load4(const float* from) { return *(const float4*)from; }

__device__ __forceinline__ void multiply_rows(Block<N>& s_MN, const float* a_MD, const float* b_ND) {
#pragma unroll 2
  for (int d = 0; d < D_MAX; d += 4) {
    float4 a[4];
#pragma unroll
    for (int i = 0; i < 4; i++) a[i] = load4(a_MD + row(i) * STRIDE + d);
#pragma unroll
    for (int j = 0; j < N / 16; j++) {
      float4 b = load4(b_ND + column(j) * STRIDE + d);
#pragma unroll
      for (int i = 0; i < 4; i++) {
        float& s = s_MN.part[i][j];
        s += a[i].x * b.x;
        s += a[i].y * b.y;
        s += a[i].z * b.z;
        s += a[i].w * b.w;
      }
    }
  }
}

// room: of a row, only the sixteen threads that have it write and read here, and they are of one warp.
__device__ __forceinline__ void multiply_columns(Block<D_MAX>& o_MD, Block<N>& p_MN,
                                                 const float* b_ND, float* room) {
  __syncwarp();
#pragma unroll
  for (int i = 0; i < 4; i++)
#pragma unroll
    for (int j = 0; j < N / 16; j++) room[row(i) * ROOM_STRIDE + column(j)] = p_MN.part[i][j];
  __syncwarp();
#pragma unroll 1
  for (int n = 0; n < N; n += 4) {
    float4 p[4];
#pragma unroll
    for (int i = 0; i < 4; i++) p[i] = load4(room + row(i) * ROOM_STRIDE + n);
#pragma unroll
    for (int j = 0; j < D_MAX / 16; j++) {
      const float* b = b_ND + n * STRIDE + column(j);
      float b0 = b[0], b1 = b[STRIDE], b2 = b[2 * STRIDE], b3 = b[3 * STRIDE];
#pragma unroll
      for (int i = 0; i < 4; i++) {
        float& o = o_MD.part[i][j];
        o += p[i].x * b0;
        o += p[i].y * b1;
        o += p[i].z * b2;
        o += p[i].w * b3;
      }
    }
  }
}
