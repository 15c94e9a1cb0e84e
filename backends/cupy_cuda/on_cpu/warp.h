// What the lanes of a warp do together: shuffles, votes, products on tensor cores.
#pragma once

#include "block.h"

#define CUDA_ON_CPU_HERE const char *file = __builtin_FILE(), int line = __builtin_LINE()

namespace cuda_on_cpu {

static unsigned lane() { return current % 32; }

static void warp_barrier(unsigned mask, Place place) {
  threads[current].mask = mask;
  wait(AT_WARP_BARRIER, place);
}

static Slot& next_slot() { return slots[current][threads[current].parity ^= 1]; }

static bool took_part(unsigned lane) { return threads[current].group >> lane & 1; }

// What a lane showed before the barrier that was just left.
static const Slot& shown(unsigned from) {
  return slots[current - lane() + from][threads[current].parities >> from & 1];
}

// Show a value to the warp, wait for it, and read that of another lane; undefined (NaN) where that lane
// did not take part.
template <class T>
static T exchange(unsigned mask, T value, unsigned from, Place place) {
  static_assert(sizeof(T) <= 8, "at most 64 bits");
  memcpy(next_slot().words, &value, sizeof(T));
  warp_barrier(mask, place);
  T other;
  if (took_part(from)) {
    memcpy(&other, shown(from).words, sizeof(T));
  } else {
    memset(&other, 0xFF, sizeof(T));
  }
  return other;
}

static unsigned ballot(unsigned mask, bool yes, Place place) {
  next_slot().words[0] = yes;
  warp_barrier(mask, place);
  unsigned found = 0;
  for (unsigned i = 0; i < 32; i++)
    if (took_part(i) && shown(i).words[0]) found |= 1u << i;
  return found;
}

// The part-th number of a register: of two bf16 (K=16), or the one tf32 (K=8), whose low bits the
// hardware does not read.
template <int K>
static float operand(unsigned bits, int part) {
  bits = K == 16 ? (part ? bits & 0xFFFF0000u : bits << 16) : bits & 0xFFFFE000u;
  float x;
  memcpy(&x, &bits, 4);
  return x;
}

// mma.sync.m16n8k16 of bf16 and m16n8k8 of tf32; cuda/mma.cuh says where the numbers lie. Every lane
// shows its fragments, and computes the four sums that are its own: two rows times two columns.
template <int K>
static void mma(float (&d)[4], const unsigned (&a)[4], const unsigned (&b)[2], CUDA_ON_CPU_HERE) {
  static_assert(sizeof a + sizeof b <= sizeof(Slot), "fragments fit in a slot");
  const int PARTS = K / 8;  // in a register
  Slot& mine = next_slot();
  memcpy(mine.words, a, sizeof a);
  memcpy((char*)mine.words + sizeof a, b, sizeof b);
  warp_barrier(0xFFFFFFFFu, {file, line});
  if (threads[current].group != 0xFFFFFFFFu) fail({file, line}, "mma by a part of a warp");
  float rows[2][K], columns[2][K];
  for (int inside = 0; inside < 4; inside++) {  // the four lanes that share a row of a, or a column of b
    unsigned left[4], right[2][2];
    memcpy(left, shown(lane() / 4 * 4 + inside).words, sizeof left);
    for (int j = 0; j < 2; j++) {
      int column = 2 * (lane() % 4) + j;
      memcpy(right[j], (const char*)shown(4 * column + inside).words + sizeof a, sizeof b);
    }
    for (int half = 0; half < 2; half++)
      for (int part = 0; part < PARTS; part++) {
        int k = half * K / 2 + inside * PARTS + part;
        for (int j = 0; j < 2; j++) {
          rows[j][k] = operand<K>(left[2 * half + j], part);
          columns[j][k] = operand<K>(right[j][half], part);
        }
      }
  }
  for (int i = 0; i < 4; i++)
    for (int k = 0; k < K; k++) d[i] += rows[i / 2][k] * columns[i % 2][k];
}

}  // namespace cuda_on_cpu

static void __syncthreads(CUDA_ON_CPU_HERE) {
  cuda_on_cpu::wait(cuda_on_cpu::AT_BLOCK_BARRIER, {file, line});
}
static int __syncthreads_count(int yes, CUDA_ON_CPU_HERE) {
  cuda_on_cpu::threads[cuda_on_cpu::current].vote = yes != 0;
  cuda_on_cpu::wait(cuda_on_cpu::AT_BLOCK_BARRIER, {file, line});
  return cuda_on_cpu::votes;
}
static int __syncthreads_or(int yes, CUDA_ON_CPU_HERE) {
  return __syncthreads_count(yes, file, line) > 0;
}
static int __syncthreads_and(int yes, CUDA_ON_CPU_HERE) {
  return __syncthreads_count(yes, file, line) == cuda_on_cpu::voters;
}
static void __syncwarp(unsigned mask = 0xFFFFFFFFu, CUDA_ON_CPU_HERE) {
  cuda_on_cpu::warp_barrier(mask, {file, line});
}

static unsigned __ballot_sync(unsigned mask, int yes, CUDA_ON_CPU_HERE) {
  return cuda_on_cpu::ballot(mask, yes, {file, line});
}
static int __any_sync(unsigned mask, int yes, CUDA_ON_CPU_HERE) {
  return cuda_on_cpu::ballot(mask, yes, {file, line}) != 0;
}
static int __all_sync(unsigned mask, int yes, CUDA_ON_CPU_HERE) {
  return cuda_on_cpu::ballot(mask, !yes, {file, line}) == 0;
}
template <class... Nothing>
static unsigned __activemask(Nothing...) {
  static_assert(sizeof...(Nothing) > 99,
                "__activemask is not emulated: which lanes run together is nothing that CUDA promises; "
                "say which lanes take part with a mask of your own");
  return 0;
}

template <class T>
static T __shfl_sync(unsigned mask, T value, int from, int width = 32, CUDA_ON_CPU_HERE) {
  unsigned lane = cuda_on_cpu::lane();
  return cuda_on_cpu::exchange(mask, value, (lane & ~(width - 1)) + (from & (width - 1)), {file, line});
}
template <class T>
static T __shfl_xor_sync(unsigned mask, T value, int bits, int width = 32, CUDA_ON_CPU_HERE) {
  unsigned lane = cuda_on_cpu::lane(), from = lane ^ bits;
  // As the hardware has it: a lane may read from a group before its own, and not from one behind it.
  bool behind = from / width > lane / width;
  return cuda_on_cpu::exchange(mask, value, behind ? lane : from, {file, line});
}
template <class T>
static T __shfl_down_sync(unsigned mask, T value, unsigned delta, int width = 32, CUDA_ON_CPU_HERE) {
  unsigned lane = cuda_on_cpu::lane(), from = lane + delta;
  return cuda_on_cpu::exchange(mask, value, from / width == lane / width ? from : lane, {file, line});
}
template <class T>
static T __shfl_up_sync(unsigned mask, T value, unsigned delta, int width = 32, CUDA_ON_CPU_HERE) {
  unsigned lane = cuda_on_cpu::lane();
  return cuda_on_cpu::exchange(mask, value, lane % width >= delta ? lane - delta : lane, {file, line});
}
static void __trap(CUDA_ON_CPU_HERE) { cuda_on_cpu::fail({file, line}, "__trap"); }
