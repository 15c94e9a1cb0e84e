// Run CUDA C++ kernels on the CPU, one block after another: for tests, where there is no GPU.
//
// Every CUDA thread is a fiber with a stack of its own. Fibers run one at a time, each until it waits at
// a barrier (__syncthreads, __syncwarp, a shuffle) or ends; so a run is deterministic, and a kernel that
// never waits needs one fiber. The order in which threads and blocks run is a parameter of the launch: a
// kernel without races gives the same bits in each.
//
// Understood: one- to three-dimensional grids and blocks, static and dynamic shared memory, barriers,
// shuffles, votes, and the mathematics below. Not understood: warps that run in lock step without a
// barrier (no kernel may rely on it), textures, dynamic parallelism, clusters.
#pragma once

#include <math.h>
#include <setjmp.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <ucontext.h>

#include <tuple>
#include <type_traits>
#include <utility>
#include <vector>

#define CUDA_ON_CPU 1
#define __global__
#define __device__
#define __host__
#define __constant__ static
#define __shared__ static
#define __forceinline__ inline
#define __launch_bounds__(...)

struct dim3 {
  unsigned x, y, z;
};
struct alignas(8) float2 { float x, y; };
struct alignas(16) float4 { float x, y, z, w; };
struct alignas(8) uint2 { unsigned x, y; };
struct alignas(16) uint4 { unsigned x, y, z, w; };
struct alignas(8) int2 { int x, y; };
struct alignas(16) int4 { int x, y, z, w; };

static dim3 threadIdx, blockIdx, blockDim, gridDim;
static const int warpSize = 32;

namespace cuda_on_cpu {

enum State { READY, AT_BLOCK_BARRIER, AT_WARP_BARRIER, ENDED };

static const size_t STACK_BYTES = 256 << 10;

struct Fiber {
  jmp_buf here;
  ucontext_t start;
  void* stack = nullptr;
};

struct Thread {
  State state = READY;
  Fiber* fiber = nullptr;
  unsigned mask = 0;    // of the warp barrier it waits at
  unsigned parity = 0;  // which half of the warp's slots its next exchange uses
};

struct Slot {
  uint64_t words[8];
};

static std::vector<Thread> threads;
static std::vector<Fiber*> idle;
static std::vector<Slot> slots;  // [thread][parity]
static std::vector<unsigned char> dynamic_bytes;
static unsigned current;
static jmp_buf scheduler;
static void (*job)(void*);
static void* job_data;
static char message[256];

static void fiber_main() {
  for (;;) {
    job(job_data);
    threads[current].state = ENDED;
    if (!_setjmp(threads[current].fiber->here)) _longjmp(scheduler, 1);
  }
}

static void yield(State state) {
  Thread& self = threads[current];
  self.state = state;
  if (!_setjmp(self.fiber->here)) _longjmp(scheduler, 1);
}

// Go on with a thread until it waits or ends.
static void resume(unsigned index) {
  Thread& thread = threads[index];
  current = index;
  threadIdx.x = index % blockDim.x;
  threadIdx.y = index / blockDim.x % blockDim.y;
  threadIdx.z = index / (blockDim.x * blockDim.y);
  bool fresh = false;
  if (!thread.fiber) {
    if (idle.empty()) {
      Fiber* made = new Fiber;
      made->stack = mmap(nullptr, STACK_BYTES, PROT_READ | PROT_WRITE,
                         MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
      getcontext(&made->start);
      made->start.uc_stack.ss_sp = made->stack;
      made->start.uc_stack.ss_size = STACK_BYTES;
      made->start.uc_link = nullptr;
      makecontext(&made->start, fiber_main, 0);
      thread.fiber = made;
      fresh = true;
    } else {
      thread.fiber = idle.back();
      idle.pop_back();
    }
  }
  thread.state = READY;
  if (!_setjmp(scheduler)) {
    if (fresh) setcontext(&thread.fiber->start);
    _longjmp(thread.fiber->here, 1);
  }
  Thread& back = threads[index];
  if (back.state == ENDED) {
    idle.push_back(back.fiber);
    back.fiber = nullptr;
  }
}

// Let a warp whose living threads all wait at one barrier go on.
static bool release_warp(unsigned first, unsigned stop) {
  unsigned waiting = 0, wanted = 0, living = 0;
  for (unsigned i = first; i < stop; i++) {
    if (threads[i].state != ENDED) living |= 1u << (i - first);
    if (threads[i].state == AT_WARP_BARRIER) {
      waiting |= 1u << (i - first);
      wanted |= threads[i].mask;
    }
  }
  if (!waiting || (wanted & living & ~waiting)) return false;
  for (unsigned i = first; i < stop; i++)
    if (threads[i].state == AT_WARP_BARRIER) threads[i].state = READY;
  return true;
}

static bool run_block(unsigned count, bool reversed) {
  threads.assign(count, Thread());
  slots.resize(2 * count);
  for (;;) {
    bool moved = false;
    unsigned ended = 0, waiting = 0;
    unsigned warps = (count + 31) / 32;
    for (unsigned k = 0; k < warps; k++) {
      unsigned warp = reversed ? warps - 1 - k : k;
      unsigned first = 32 * warp, stop = first + 32 < count ? first + 32 : count;
      do {
        for (unsigned i = first; i < stop; i++) {
          unsigned index = reversed ? stop - 1 - (i - first) : i;
          if (threads[index].state == READY) {
            resume(index);
            moved = true;
          }
        }
      } while (release_warp(first, stop));
      for (unsigned i = first; i < stop; i++) {
        ended += threads[i].state == ENDED;
        waiting += threads[i].state == AT_BLOCK_BARRIER;
      }
    }
    if (ended == count) return true;
    if (ended + waiting == count) {
      for (auto& thread : threads)
        if (thread.state == AT_BLOCK_BARRIER) thread.state = READY;
    } else if (!moved) {
      for (unsigned i = 0; i < count; i++)
        if (threads[i].state == AT_WARP_BARRIER) {
          snprintf(message, sizeof message,
                   "thread %u of block %u waits at a warp barrier (mask %08x) that not all reach",
                   i, blockIdx.x, threads[i].mask);
          return false;
        }
    }
  }
}

static void abandon() {
  for (auto& thread : threads)
    if (thread.fiber) {
      munmap(thread.fiber->stack, STACK_BYTES);
      delete thread.fiber;
      thread.fiber = nullptr;
    }
}

template <class... A, size_t... I>
static void invoke(void (*kernel)(A...), void** args, std::index_sequence<I...>) {
  kernel(*(std::remove_reference_t<A>*)args[I]...);
}

// Run a kernel over a grid. order: 0 first to last, 1 last to first. Returns null, or what went wrong.
template <class... A>
static const char* launch(void (*kernel)(A...), const unsigned* grid, const unsigned* block,
                          unsigned shared_bytes, void** args, int order) {
  auto call = [&] { invoke(kernel, args, std::index_sequence_for<A...>{}); };
  job = [](void* data) { (*(decltype(call)*)data)(); };
  job_data = &call;
  gridDim = {grid[0], grid[1], grid[2]};
  blockDim = {block[0], block[1], block[2]};
  unsigned blocks = grid[0] * grid[1] * grid[2], count = block[0] * block[1] * block[2];
  for (unsigned k = 0; k < blocks; k++) {
    unsigned b = order == 1 ? blocks - 1 - k : k;
    blockIdx = {b % grid[0], b / grid[0] % grid[1], b / (grid[0] * grid[1])};
    dynamic_bytes.assign(shared_bytes + 16, 0xFF);  // NaN: what is read before it is written
    if (!run_block(count, order == 1)) {
      abandon();
      return message;
    }
  }
  return nullptr;
}

static void* dynamic_shared() {
  uintptr_t start = (uintptr_t)dynamic_bytes.data();
  return (void*)((start + 15) & ~(uintptr_t)15);
}

// One letter for each parameter of a kernel: p pointer, i 32-bit, l 64-bit integer, f float, ? other.
template <class T>
constexpr char letter() {
  if (std::is_pointer_v<T>) return 'p';
  if (std::is_same_v<T, float>) return 'f';
  if (std::is_integral_v<T> && sizeof(T) == 4) return 'i';
  if (std::is_integral_v<T> && sizeof(T) == 8) return 'l';
  return '?';
}
template <class... A>
static const char* letters(void (*)(A...)) {
  static const char found[] = {letter<A>()..., 0};
  return found;
}

static unsigned lane() { return current % 32; }

static void warp_barrier(unsigned mask) {
  threads[current].mask = mask;
  yield(AT_WARP_BARRIER);
}

// Show a value to the warp, wait for it, and read that of another lane.
template <class T>
static T exchange(unsigned mask, T value, unsigned from) {
  static_assert(sizeof(T) <= 8, "at most 64 bits");
  unsigned parity = threads[current].parity++ & 1;
  memcpy(slots[2 * current + parity].words, &value, sizeof(T));
  warp_barrier(mask);
  unsigned source = current - lane() + from;
  if (source >= threads.size()) return value;
  T other;
  memcpy(&other, slots[2 * source + parity].words, sizeof(T));
  return other;
}

}  // namespace cuda_on_cpu

#define CUDA_ON_CPU_KERNEL(name)                                                              \
  extern "C" const char* launch_##name(const unsigned* grid, const unsigned* block,           \
                                       unsigned shared_bytes, void** args, int order) {       \
    return cuda_on_cpu::launch(name, grid, block, shared_bytes, args, order);                 \
  }                                                                                           \
  extern "C" const char* letters_##name() { return cuda_on_cpu::letters(name); }

static void __syncthreads() { cuda_on_cpu::yield(cuda_on_cpu::AT_BLOCK_BARRIER); }
static void __syncwarp(unsigned mask = 0xffffffffu) { cuda_on_cpu::warp_barrier(mask); }

template <class T>
static T __shfl_sync(unsigned mask, T value, int from, int width = 32) {
  unsigned lane = cuda_on_cpu::lane();
  return cuda_on_cpu::exchange(mask, value, (lane & ~(width - 1)) + (from & (width - 1)));
}
template <class T>
static T __shfl_xor_sync(unsigned mask, T value, int bits, int width = 32) {
  unsigned lane = cuda_on_cpu::lane(), from = lane ^ bits;
  return cuda_on_cpu::exchange(mask, value, (from / width == lane / width) ? from : lane);
}
template <class T>
static T __shfl_down_sync(unsigned mask, T value, unsigned delta, int width = 32) {
  unsigned lane = cuda_on_cpu::lane(), from = lane + delta;
  return cuda_on_cpu::exchange(mask, value, (from / width == lane / width) ? from : lane);
}
template <class T>
static T __shfl_up_sync(unsigned mask, T value, unsigned delta, int width = 32) {
  unsigned lane = cuda_on_cpu::lane();
  return cuda_on_cpu::exchange(mask, value, lane % width >= delta ? lane - delta : lane);
}

static float rsqrtf(float x) { return 1.0f / sqrtf(x); }
// glibc declares functions of these names.
#define __expf(x) expf(x)
#define __logf(x) logf(x)
static float __fdividef(float a, float b) { return a / b; }
static float __fmul_rn(float a, float b) { return a * b; }
static float __fadd_rn(float a, float b) { return a + b; }
static float __frcp_rn(float x) { return 1.0f / x; }
static int __float_as_int(float x) { int i; memcpy(&i, &x, 4); return i; }
static unsigned __float_as_uint(float x) { unsigned i; memcpy(&i, &x, 4); return i; }
static float __int_as_float(int i) { float x; memcpy(&x, &i, 4); return x; }
static float __uint_as_float(unsigned i) { float x; memcpy(&x, &i, 4); return x; }
static unsigned __umulhi(unsigned a, unsigned b) { return (uint64_t)a * b >> 32; }
template <class T> static T __ldg(const T* p) { return *p; }
template <class T> static T __ldcs(const T* p) { return *p; }
template <class T> static void __stcs(T* p, T value) { *p = value; }
template <class T> static T min(T a, T b) { return b < a ? b : a; }
template <class T> static T max(T a, T b) { return a < b ? b : a; }
