// One row of LayerNorm, spread over the threads of rows.cuh.
//
// A thread holds HELD pieces of a row in registers: those at threadIdx.x, threadIdx.x + blockDim.x, ... A
// piece is 16 bytes of elements, or one element (ONE_BY_ONE) where C is no multiple of that many.

#include "rows.cuh"

#ifndef HELD
#define HELD 3
#endif

#ifdef ONE_BY_ONE
struct Piece {
  static const int SIZE = 1;
  element part[1];
};
__device__ __forceinline__ Piece load_piece(const element* from) {
  Piece piece;
  piece.part[0] = *from;
  return piece;
}
__device__ __forceinline__ void store_piece(element* to, const float (&x)[1]) {
  *to = narrow<element>(x[0]);
}
#else
typedef Pack<element> Piece;
__device__ __forceinline__ Piece load_piece(const element* from) { return load_pack(from); }
__device__ __forceinline__ void store_piece(element* to, const float (&x)[Piece::SIZE]) {
  store_pack(to, narrow_pack(x));
}
#endif

const int SIZE = Piece::SIZE;

__device__ __forceinline__ void store_floats(float* to, const float (&x)[SIZE]) {
#ifdef ONE_BY_ONE
  *to = x[0];
#else
#pragma unroll
  for (int k = 0; k < SIZE; k += 4) *(float4*)(to + k) = {x[k], x[k + 1], x[k + 2], x[k + 3]};
#endif
}

#define EACH_HELD(j) _Pragma("unroll") for (int j = 0; j < HELD; j++)
#define EACH_PART(k) _Pragma("unroll") for (int k = 0; k < SIZE; k++)

// Which piece a thread holds as its j-th.
__device__ __forceinline__ int piece_of(int j) { return threadIdx.x + j * blockDim.x; }
