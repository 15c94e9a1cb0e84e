// Run a grid: block after block, and the threads of a block in turns, from barrier to barrier.
#pragma once

#include <link.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include <type_traits>
#include <utility>

#include "fibers.h"

struct dim3 {
  unsigned x, y, z;
};
static dim3 threadIdx, blockIdx, blockDim, gridDim;

namespace cuda_on_cpu {

enum State { READY, AT_BLOCK_BARRIER, AT_WARP_BARRIER, ENDED };

// A line of a kernel, where threads wait for each other.
struct Place {
  const char* file;
  int line;
  bool operator!=(const Place& other) const {
    return line != other.line || (file != other.file && strcmp(file, other.file) != 0);
  }
};

struct Thread {
  State state;
  unsigned mask;        // of the warp barrier it waits at
  unsigned group;       // the lanes that left its last warp barrier with it
  unsigned parity;      // which of its two slots it showed last
  unsigned parities;    // the same of every lane, when they left
  int vote;             // of the block barrier it waits at
  Place place;          // of the barrier it waits at
  char* stack;          // none before it first runs
};

// What a lane shows to its warp. There are two for each thread: a lane may already show for the next
// exchange what others have not read from the last; it cannot be further ahead.
struct Slot {
  uint64_t words[4];
};

static const unsigned MAX_THREADS = 1024;
static Thread threads[MAX_THREADS];
static Fiber fibers[MAX_THREADS];
static Fiber scheduler;
static Slot slots[MAX_THREADS][2];
static unsigned current;                   // the thread that runs
static unsigned queue[32], queued, taken;  // threads of one warp that run next
static unsigned count;                     // threads of a block
static int votes, voters;                  // of the last block barrier
static bool failed;
static char message[512];
static char* dynamic_bytes;
static void (*job)(void*);
static void* job_data;

static dim3 index_of(unsigned thread) {
  if (thread < blockDim.x) return {thread, 0, 0};
  return {thread % blockDim.x, thread / blockDim.x % blockDim.y, thread / (blockDim.x * blockDim.y)};
}

// Say what went wrong, where: the launch ends with this message.
static void describe(unsigned thread, Place place, const char* format, ...) {
  dim3 at = index_of(thread);
  int length = snprintf(message, sizeof message, "thread (%u, %u, %u) of block (%u, %u, %u), %s:%d: ",
                        at.x, at.y, at.z, blockIdx.x, blockIdx.y, blockIdx.z, place.file, place.line);
  va_list values;
  va_start(values, format);
  vsnprintf(message + length, sizeof message - length, format, values);
  va_end(values);
  failed = true;
}

static void fiber_main();

// Leave this fiber for the next in the queue, or for the scheduler. An ended thread's fiber stays.
static void leave(Fiber& from) {
  if (taken == queued || failed) {
    go(from, scheduler);
    return;
  }
  current = queue[taken++];
  threadIdx = index_of(current);
  Thread& thread = threads[current];
  thread.state = READY;
  if (!thread.stack) {
    thread.stack = take_stack();
    fibers[current].start(thread.stack, fiber_main);
  }
  go(from, fibers[current]);
}

static void fiber_main() {
  for (;;) {
    job(job_data);
    Thread& ended = threads[current];
    ended.state = ENDED;
    if (taken < queued && !failed && !threads[queue[taken]].stack) {
      // The next thread begins: on this stack, without a switch.
      current = queue[taken++];
      threadIdx = index_of(current);
      threads[current].stack = ended.stack;
      ended.stack = nullptr;
    } else {
      leave(fibers[current]);
    }
  }
}

static void wait(State state, Place place) {
  unsigned self = current;
  threads[self].state = state;
  threads[self].place = place;
  leave(fibers[self]);
}

// End the launch with a message, from within a kernel.
static void fail(Place place, const char* why) {
  describe(current, place, "%s", why);
  go(fibers[current], scheduler);
}

static void run_queue() {
  taken = 0;
  leave(scheduler);
}

// Let those lanes of a warp go on of whom all that their mask names wait, or have ended.
static bool release_warp(unsigned first, unsigned stop) {
  unsigned ended = 0, waiting = 0, parities = 0;
  for (unsigned i = first; i < stop; i++) {
    if (threads[i].state == ENDED) ended |= 1u << (i - first);
    if (threads[i].state == AT_WARP_BARRIER) waiting |= 1u << (i - first);
    parities |= threads[i].parity << (i - first);
  }
  if (stop - first < 32) ended |= ~0u << (stop - first);
  bool released = false;
  for (unsigned left = waiting; left;) {
    unsigned leader = first + __builtin_ctz(left), mask = threads[leader].mask;
    unsigned group = mask & ~ended;
    left &= left - 1;
    if (!(mask >> (leader - first) & 1)) {
      describe(leader, threads[leader].place, "its own lane is not in the mask %08x", mask);
      return false;
    }
    bool all = !(group & ~waiting);
    for (unsigned lanes = group & waiting; lanes; lanes &= lanes - 1)
      all &= threads[first + __builtin_ctz(lanes)].mask == mask;
    if (!all) continue;
    for (unsigned lanes = group; lanes; lanes &= lanes - 1) {
      Thread& other = threads[first + __builtin_ctz(lanes)];
      if (other.place != threads[leader].place) {
        describe(leader, threads[leader].place, "lane %u of its warp waits for it elsewhere, at %s:%d",
                 __builtin_ctz(lanes), other.place.file, other.place.line);
        return false;
      }
      other.state = READY;
      other.group = group;
      other.parities = parities;
    }
    left &= ~group;
    released = true;
  }
  return released;
}

// Let a block go on whose threads all wait at __syncthreads, or have ended.
static bool release_block() {
  unsigned leader = 0;
  while (threads[leader].state == ENDED) leader++;
  votes = voters = 0;
  for (unsigned i = leader; i < count; i++) {
    Thread& thread = threads[i];
    if (thread.state == ENDED) continue;
    if (thread.place != threads[leader].place) {
      dim3 at = index_of(leader);
      describe(i, thread.place, "a divergent barrier: thread (%u, %u, %u) waits at %s:%d", at.x, at.y,
               at.z, threads[leader].place.file, threads[leader].place.line);
      return false;
    }
    thread.state = READY;
    votes += thread.vote != 0;
    voters++;
  }
  return true;
}

// Nobody can go on: some wait at a barrier that others, who wait elsewhere, do not reach.
static void describe_standstill() {
  unsigned here = 0, other = 0;
  while (threads[here].state != AT_WARP_BARRIER) here++;
  while (other < count && threads[other].state != AT_BLOCK_BARRIER) other++;
  if (other < count) {
    describe(other, threads[other].place,
             "a divergent barrier: it waits for the block, and others for their warp at %s:%d (mask %08x)",
             threads[here].place.file, threads[here].place.line, threads[here].mask);
  } else {
    describe(here, threads[here].place,
             "it waits for lanes of its warp (mask %08x) that wait for others", threads[here].mask);
  }
}

// An order of blocks and threads: 0 first to last, 1 last to first, otherwise shuffled by this seed.
struct Order {
  int kind;
  uint64_t state;
  explicit Order(int order) : kind(order), state(order * 0x9E3779B97F4A7C15ull + 1) {}
  unsigned below(unsigned limit) {
    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    return (state >> 32) * limit >> 32;
  }
  bool coin() { return kind > 1 && below(2); }
  // The numbers from 0 to size - 1.
  void arrange(unsigned* numbers, unsigned size) {
    for (unsigned i = 0; i < size; i++) {
      numbers[i] = kind == 1 ? size - 1 - i : i;
      if (kind > 1) {
        unsigned other = below(i + 1);
        numbers[i] = numbers[other];
        numbers[other] = i;
      }
    }
  }
};

static void run_warp(unsigned first, unsigned stop, Order& order) {
  unsigned lanes[32];
  do {
    order.arrange(lanes, stop - first);
    queued = 0;
    for (unsigned i = 0; i < stop - first; i++)
      if (threads[first + lanes[i]].state == READY) queue[queued++] = first + lanes[i];
    if (queued) run_queue();
    for (unsigned i = first; i < stop; i++)
      if (threads[i].state == ENDED && threads[i].stack) {
        give_stack(threads[i].stack);
        threads[i].stack = nullptr;
      }
    // Shuffled, another warp may come in between.
  } while (!failed && release_warp(first, stop) && !order.coin());
}

static void run_block(Order& order) {
  for (unsigned i = 0; i < count; i++) threads[i] = Thread();
  unsigned warps[MAX_THREADS / 32], number = (count + 31) / 32;
  for (;;) {
    unsigned ended = 0, waiting = 0, ready = 0;
    order.arrange(warps, number);
    for (unsigned k = 0; k < number; k++) {
      unsigned first = 32 * warps[k], stop = first + 32 < count ? first + 32 : count;
      run_warp(first, stop, order);
      if (failed) return;
      for (unsigned i = first; i < stop; i++) {
        ended += threads[i].state == ENDED;
        waiting += threads[i].state == AT_BLOCK_BARRIER;
        ready += threads[i].state == READY;
      }
    }
    if (ended == count) return;
    if (ready) continue;
    if (ended + waiting < count) return describe_standstill();
    if (!release_block()) return;
  }
}

// Where this library's static shared memory lies: it is declared as memory of the OS thread, which the
// linker gathers in one segment.
struct Shared {
  char* start = nullptr;
  size_t bytes = 0;
};
static int find_shared(dl_phdr_info* library, size_t, void* found) {
  const ElfW(Phdr)* tls = nullptr;
  bool ours = false;
  for (int i = 0; i < library->dlpi_phnum; i++) {
    const ElfW(Phdr)& part = library->dlpi_phdr[i];
    if (part.p_type == PT_TLS) tls = &part;
    uintptr_t start = library->dlpi_addr + part.p_vaddr, here = (uintptr_t)&message;
    ours |= part.p_type == PT_LOAD && here >= start && here < start + part.p_memsz;
  }
  if (ours && tls) *(Shared*)found = {(char*)library->dlpi_tls_data, tls->p_memsz};
  return ours;
}
static thread_local char first_shared;  // touched, so that the segment is there

template <class... A, size_t... I>
static void invoke(void (*kernel)(A...), void** args, std::index_sequence<I...>) {
  kernel(*(std::remove_reference_t<A>*)args[I]...);
}

// Run a kernel over a grid. Returns null, or what went wrong.
template <class... A>
static const char* launch(void (*kernel)(A...), const unsigned* grid, const unsigned* block,
                          unsigned shared_bytes, void** args, int kind) {
  auto call = [&] { invoke(kernel, args, std::index_sequence_for<A...>{}); };
  hold_pool();
  job = [](void* data) { (*(decltype(call)*)data)(); };
  job_data = &call;
  failed = false;
  gridDim = {grid[0], grid[1], grid[2]};
  blockDim = {block[0], block[1], block[2]};
  count = block[0] * block[1] * block[2];
  unsigned blocks = grid[0] * grid[1] * grid[2];
  unsigned* numbers = (unsigned*)malloc(blocks * sizeof(unsigned));
  dynamic_bytes = (char*)aligned_alloc(128, (shared_bytes + 255) / 128 * 128);
  *(volatile char*)&first_shared = 0;
  Shared shared;
  dl_iterate_phdr(find_shared, &shared);
  unsigned before = pool->flush ? flush_denormals() : 0;
  Order order(kind);
  order.arrange(numbers, blocks);
  for (unsigned k = 0; k < blocks && !failed; k++) {
    unsigned b = numbers[k];
    blockIdx = {b % grid[0], b / grid[0] % grid[1], b / (grid[0] * grid[1])};
    // NaN: what is read before it is written.
    memset(dynamic_bytes, 0xFF, shared_bytes);
    if (shared.start) memset(shared.start, 0xFF, shared.bytes);
    run_block(order);
  }
  if (pool->flush) restore_denormals(before);
  for (unsigned i = 0; i < count; i++)
    if (threads[i].stack) give_stack(threads[i].stack);  // of threads that did not end
  free(numbers);
  free(dynamic_bytes);
  leave_pool();
  return failed ? message : nullptr;
}

static void* dynamic_shared() { return dynamic_bytes; }

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

}  // namespace cuda_on_cpu
