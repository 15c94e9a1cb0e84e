// mean = Σ_c x / C            rstd = 1 / sqrt(Σ_c (x - mean)² / C + eps)
// xhat = (x - mean) · rstd    out = xhat · weight + bias
//
// dxhat = dout · weight       dx = rstd · (dxhat - mean_c(dxhat) - xhat · mean_c(dxhat · xhat))
// dweight = Σ_n dout · xhat   dbias = Σ_n dout
//
// A row has a warp, or a few (layernorm.cuh), and is read once: it stays in registers while its sums are
// taken. A block of the backward goes over many rows, and sums dweight and dbias on the way.

#include "layernorm.cuh"

// A row of x, which is a + b where there is a b: a piece of it from its parts, or from memory.
template <bool SUM>
struct Row {
  const element *a_C, *b_C;

  __device__ __forceinline__ void add(float (&x)[SIZE], const Piece& a, const Piece& b) const {
    EACH_PART(k) x[k] = SUM ? wide(a.part[k]) + wide(b.part[k]) : wide(a.part[k]);
  }

  __device__ __forceinline__ void read(float (&x)[SIZE], int i) const {
    Piece a = load_piece(a_C + i * SIZE), b;
    if (SUM) b = load_piece(b_C + i * SIZE);
    add(x, a, b);
  }
};

// Piece i of the result.
__device__ __forceinline__ void write_normal(element* out_C, const float (&x)[SIZE], int i, float mean,
                                             float rstd, const element* weight_C, const element* bias_C) {
  Piece weight = load_piece(weight_C + i * SIZE), bias = load_piece(bias_C + i * SIZE);
  float out[SIZE];
  EACH_PART(k) out[k] = (x[k] - mean) * rstd * wide(weight.part[k]) + wide(bias.part[k]);
  store_piece(out_C + i * SIZE, out);
}

// What does not fit in registers is read again. sum_C may be a_C or b_C: a piece of it is written when
// nothing reads that piece again, by the thread that did.
template <bool SUM>
__device__ __forceinline__ void normalise(element* sum_NC, element* out_NC, float* mean_N, float* rstd_N,
                                          const element* a_NC, const element* b_NC,
                                          const element* __restrict__ weight_C,
                                          const element* __restrict__ bias_C, int64 N, int C, float eps) {
  __shared__ float room[2][32];
  int64 n = row_of_thread();
  if (n >= N) return;
  int pieces = C / SIZE, first_left = piece_of(HELD);
  Row<SUM> row = {a_NC + n * C, SUM ? b_NC + n * C : nullptr};
  element* sum_C = SUM ? sum_NC + n * C : nullptr;
  element* out_C = out_NC + n * C;
  float x[HELD][SIZE], left[SIZE], sum = 0.0f, squares = 0.0f;

  // All loads come before the first use of one.
  Piece a[HELD], b[HELD];
  EACH_HELD(j) if (piece_of(j) < pieces) {
    a[j] = load_piece(row.a_C + piece_of(j) * SIZE);
    if (SUM) b[j] = load_piece(row.b_C + piece_of(j) * SIZE);
  }
  EACH_HELD(j) {
    if (piece_of(j) < pieces) row.add(x[j], a[j], b[j]);
    else EACH_PART(k) x[j][k] = 0.0f;
  }
  EACH_HELD(j) EACH_PART(k) sum += x[j][k];
  for (int i = first_left; i < pieces; i += blockDim.x) {
    row.read(left, i);
    EACH_PART(k) sum += left[k];
  }
  float mean = row_sum(sum, room[0]) / C;

  EACH_HELD(j) if (piece_of(j) < pieces) EACH_PART(k) squares += (x[j][k] - mean) * (x[j][k] - mean);
  for (int i = first_left; i < pieces; i += blockDim.x) {
    row.read(left, i);
    EACH_PART(k) squares += (left[k] - mean) * (left[k] - mean);
  }
  float rstd = 1.0f / sqrtf(row_sum(squares, room[1]) / C + eps);

  if (threadIdx.x == 0) mean_N[n] = mean, rstd_N[n] = rstd;
  EACH_HELD(j) if (piece_of(j) < pieces) {
    write_normal(out_C, x[j], piece_of(j), mean, rstd, weight_C, bias_C);
    if (SUM) store_piece(sum_C + piece_of(j) * SIZE, x[j]);
  }
  for (int i = first_left; i < pieces; i += blockDim.x) {
    row.read(left, i);
    write_normal(out_C, left, i, mean, rstd, weight_C, bias_C);
    if (SUM) store_piece(sum_C + i * SIZE, left);
  }
}

extern "C" __global__ void __launch_bounds__(512, 1)
layernorm_forward(element* out_NC, float* mean_N, float* rstd_N, const element* x_NC,
                  const element* __restrict__ weight_C, const element* __restrict__ bias_C, int64 N, int C,
                  float eps) {
  normalise<false>(nullptr, out_NC, mean_N, rstd_N, x_NC, nullptr, weight_C, bias_C, N, C, eps);
}

extern "C" __global__ void __launch_bounds__(512, 1)
residual_layernorm_forward(element* sum_NC, element* out_NC, float* mean_N, float* rstd_N,
                           const element* a_NC, const element* b_NC,
                           const element* __restrict__ weight_C, const element* __restrict__ bias_C,
                           int64 N, int C, float eps) {
  normalise<true>(sum_NC, out_NC, mean_N, rstd_N, a_NC, b_NC, weight_C, bias_C, N, C, eps);
}

// A piece of one row in the backward: what its numbers come from, and what is made of them.
struct Slope {
  float xhat[SIZE], dout[SIZE], dxhat[SIZE];

  __device__ __forceinline__ Slope(const Piece& x, const Piece& d, const element* weight_C, int i,
                                   float mean, float rstd) {
    Piece weight = load_piece(weight_C + i * SIZE);
    EACH_PART(k) {
      xhat[k] = (wide(x.part[k]) - mean) * rstd;
      dout[k] = wide(d.part[k]);
      dxhat[k] = dout[k] * wide(weight.part[k]);
    }
  }
};

// sums_C (of this block's columns) = the sum over the block's rows of what their threads hold, in order.
// A thread's numbers lie blockDim.x apart in shared memory, so that no two lanes meet in a bank.
__device__ __forceinline__ void write_sums(float* sums_C, const float (&held)[HELD][SIZE], float* shared,
                                           int pieces) {
  int row = threadIdx.y, last = blockDim.y - 1;
  for (int turn = 0; turn <= last; turn++) {
    if (row == turn)
      EACH_HELD(j) {
        float total[SIZE];
        EACH_PART(k) {
          float* place = shared + (j * SIZE + k) * blockDim.x + threadIdx.x;
          total[k] = row ? *place + held[j][k] : held[j][k];
          if (row != last) *place = total[k];
        }
        if (row == last && piece_of(j) < pieces) store_floats(sums_C + piece_of(j) * SIZE, total);
      }
    __syncthreads();
  }
}

// The blocks along x share the rows; those along y the columns, where a row is longer than a block holds:
// then each takes the sums over whole rows, and makes dx and the sums over rows for its own columns.
// dx_NC, dsum_NC, dweight_BC and dbias_BC (a row of sums for each block along x) may be null.
extern "C" __global__ void __launch_bounds__(512, 1)
layernorm_backward(element* __restrict__ dx_NC, float* dweight_BC, float* dbias_BC,
                   const element* __restrict__ dsum_NC, const element* __restrict__ dout_NC,
                   const element* __restrict__ x_NC, const element* __restrict__ weight_C,
                   const float* __restrict__ mean_N, const float* __restrict__ rstd_N, int64 N, int C) {
  __shared__ float room[2][64];
  DYNAMIC_SHARED(float, shared);
  int first = blockIdx.y * HELD * blockDim.x, all = C / SIZE, pieces = all - first, parity = 0;
  float part_of_C = 1.0f / C, dweight[HELD][SIZE], dbias[HELD][SIZE];
  EACH_HELD(j) EACH_PART(k) dweight[j][k] = dbias[j][k] = 0.0f;

  // All threads of a block go round together, as row_sums wants it; some may have no row.
  for (int64 begin = (int64)blockIdx.x * blockDim.y; begin < N; begin += (int64)gridDim.x * blockDim.y) {
    int64 n = begin + threadIdx.y;
    bool there = n < N;
    const element *x_C = x_NC + n * C, *dout_C = dout_NC + n * C;
    const element* dsum_C = dsum_NC ? dsum_NC + n * C : nullptr;
    Piece x[HELD], dout[HELD], dsum[HELD];
    EACH_HELD(j) if (there && piece_of(j) < pieces) {
      int at = (first + piece_of(j)) * SIZE;
      x[j] = load_piece(x_C + at);
      dout[j] = load_piece(dout_C + at);
      if (dsum_NC) dsum[j] = load_piece(dsum_C + at);
    }
    float mean = there ? mean_N[n] : 0.0f, rstd = there ? rstd_N[n] : 0.0f;
    float mean_dxhat = 0.0f, mean_dxhat_xhat = 0.0f;  // sums, until they are divided
    EACH_HELD(j) if (there && piece_of(j) < pieces) {
      Slope slope(x[j], dout[j], weight_C, first + piece_of(j), mean, rstd);
      EACH_PART(k) {
        dweight[j][k] += slope.dout[k] * slope.xhat[k];
        dbias[j][k] += slope.dout[k];
        mean_dxhat += slope.dxhat[k];
        mean_dxhat_xhat += slope.dxhat[k] * slope.xhat[k];
      }
    }
    if (!dx_NC) continue;

    if (gridDim.y > 1 && there)
      for (int i = threadIdx.x; i < all; i += blockDim.x) {
        if (i >= first && i < first + HELD * blockDim.x) continue;
        Slope slope(load_piece(x_C + i * SIZE), load_piece(dout_C + i * SIZE), weight_C, i, mean, rstd);
        EACH_PART(k) {
          mean_dxhat += slope.dxhat[k];
          mean_dxhat_xhat += slope.dxhat[k] * slope.xhat[k];
        }
      }
    row_sums(mean_dxhat, mean_dxhat_xhat, room[parity]);
    parity ^= 1;
    mean_dxhat *= part_of_C, mean_dxhat_xhat *= part_of_C;

    element* dx_C = dx_NC + n * C;
    EACH_HELD(j) if (there && piece_of(j) < pieces) {
      Slope slope(x[j], dout[j], weight_C, first + piece_of(j), mean, rstd);
      float dx[SIZE];
      EACH_PART(k) dx[k] = rstd * (slope.dxhat[k] - mean_dxhat - slope.xhat[k] * mean_dxhat_xhat);
      if (dsum_NC) EACH_PART(k) dx[k] += wide(dsum[j].part[k]);
      store_piece(dx_C + (first + piece_of(j)) * SIZE, dx);
    }
  }
  int64 place = (int64)blockIdx.x * C + first * SIZE;
  if (dweight_BC) write_sums(dweight_BC + place, dweight, shared, pieces);
  if (dbias_BC) write_sums(dbias_BC + place, dbias, shared, pieces);
}

// dweight = Σ_b dweight_BC[b], or added to it; and the same for dbias, in the blocks of blockIdx.y = 1.
// blockDim (32, 32): a warp has every 32nd row of 32 columns.
extern "C" __global__ void __launch_bounds__(1024)
layernorm_add_sums(float* dweight_C, float* dbias_C, const float* dweight_BC, const float* dbias_BC, int B,
                   int C, int accumulate) {
  __shared__ float room[32][33];
  float* out_C = blockIdx.y ? dbias_C : dweight_C;
  const float* sums_BC = blockIdx.y ? dbias_BC : dweight_BC;
  if (!out_C) return;
  int c = blockIdx.x * 32 + threadIdx.x;
  float sum = 0.0f;
  if (c < C)
    for (int b = threadIdx.y; b < B; b += 32) sum += sums_BC[(int64)b * C + c];
  room[threadIdx.y][threadIdx.x] = sum;
  __syncthreads();
  // Turned over, a warp has the 32 sums of one column.
  float total = warp_sum(room[threadIdx.x][threadIdx.y]);
  c = blockIdx.x * 32 + threadIdx.y;
  if (threadIdx.x == 0 && c < C) out_C[c] = accumulate ? out_C[c] + total : total;
}
