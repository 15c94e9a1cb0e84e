// The four words of each counter, a thread for each.

#include "common.cuh"
#include "quads.cuh"
#include "philox.cuh"

extern "C" __global__ void words(unsigned* words_N4, const unsigned* counter_N4,
                                 const unsigned* key_N2) {
  const unsigned* counter = counter_N4 + 4 * threadIdx.x;
  const unsigned* key = key_N2 + 2 * threadIdx.x;
  uint4 four = philox({counter[0], counter[1], counter[2], counter[3]}, {key[0], key[1]});
  unsigned* out = words_N4 + 4 * threadIdx.x;
  out[0] = four.x, out[1] = four.y, out[2] = four.z, out[3] = four.w;
}
