// Random words by their number: Philox4x32-10, word for word that of harness/contract/philox.py.
//
// Include quads.cuh first. A block of four words is a function of its counter and a key alone, so any
// thread makes those of its own elements: element i has word i mod 4 of the block of counter i div 4.
// Source: Salmon, Moraes, Dror and Shaw 2011, "Parallel random numbers: as easy as 1, 2, 3".

#define PHILOX_ROUNDS 10
#define PHILOX_MULTIPLIER_0 0xD2511F53u
#define PHILOX_MULTIPLIER_1 0xCD9E8D57u
#define PHILOX_KEY_STEP_0 0x9E3779B9u
#define PHILOX_KEY_STEP_1 0xBB67AE85u

__device__ __forceinline__ uint4 philox(uint4 counter, uint2 key) {
  for (int round = 0; round < PHILOX_ROUNDS; round++) {
    uint4 next = {__umulhi(PHILOX_MULTIPLIER_1, counter.z) ^ counter.y ^ key.x,
                  PHILOX_MULTIPLIER_1 * counter.z,
                  __umulhi(PHILOX_MULTIPLIER_0, counter.x) ^ counter.w ^ key.y,
                  PHILOX_MULTIPLIER_0 * counter.x};
    counter = next;
    key.x += PHILOX_KEY_STEP_0;
    key.y += PHILOX_KEY_STEP_1;
  }
  return counter;
}

// The words of the four elements from 4 * block on.
__device__ __forceinline__ uint4 words_of_quad(int64 block, uint2 key) {
  uint4 counter = {(unsigned)block, (unsigned)(block >> 32), 0, 0};
  return philox(counter, key);
}

// A number as a bfloat16 value, up or down by the low 16 bits of a random word; NaN and infinity stay,
// and what would become infinite is the largest finite bfloat16.
__device__ __forceinline__ float round_at_random(float x, unsigned word) {
  unsigned bits = __float_as_uint(x);
  if ((bits & 0x7F800000u) == 0x7F800000u) return x;
  unsigned rounded = (bits + (word & 0xFFFFu)) & 0xFFFF0000u;
  if ((rounded & 0x7F800000u) == 0x7F800000u) rounded -= 0x10000u;
  return __uint_as_float(rounded);
}

// The same for the four elements from 4 * block on.
__device__ __forceinline__ Quad round_at_random(const Quad& x, int64 block, uint2 key) {
  uint4 word = words_of_quad(block, key);
  Quad rounded = {{round_at_random(x.part[0], word.x), round_at_random(x.part[1], word.y),
                   round_at_random(x.part[2], word.z), round_at_random(x.part[3], word.w)}};
  return rounded;
}
