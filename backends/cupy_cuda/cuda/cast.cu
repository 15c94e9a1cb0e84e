// out = round(x), from elements of type FROM to elements of type TO: to nearest even, or at random.
//
// A thread does four elements at a time, and goes on at a stride of the whole grid.

#include "common.cuh"
#include "quads.cuh"
#include "philox.cuh"

#ifndef FROM
#define FROM float
#define TO bf16
#endif

extern "C" __global__ void cast(TO* __restrict__ out_P, const FROM* __restrict__ x_P, int64 P) {
  int64 whole = P / 4;
#pragma unroll 4
  for (int64 q = thread_index(); q < whole; q += thread_count())
    store_quad(out_P + 4 * q, load_quad(x_P + 4 * q));
  int rest = P % 4;
  if (rest && thread_index() == 0)
    store_quad(out_P + 4 * whole, load_quad(x_P + 4 * whole, rest), rest);
}

// first: of the element x_P[0], a multiple of 4: a quad's four words are of one block.
extern "C" __global__ void stochastic_cast(TO* out_P, const FROM* x_P, const int* key_2,
                                           int64 first, int64 P) {
  int64 whole = P / 4, block = first / 4;
  uint2 key = {(unsigned)key_2[0], (unsigned)key_2[1]};
  for (int64 q = thread_index(); q < whole; q += thread_count())
    store_quad(out_P + 4 * q, round_at_random(load_quad(x_P + 4 * q), block + q, key));
  int rest = P % 4;
  if (rest && thread_index() == 0) {
    Quad x = load_quad(x_P + 4 * whole, rest);
    store_quad(out_P + 4 * whole, round_at_random(x, block + whole, key), rest);
  }
}
