// Fibers: a stack for each CUDA thread that waits, and a switch from one to another.
#pragma once

#include <sched.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>

namespace cuda_on_cpu {

static const size_t STACK_BYTES = 256 << 10, GUARD_BYTES = 64 << 10;

// Stacks that no thread uses. One pool serves every library of a process: compiler.py has it, all zero
// at first. Who holds it runs, so kernels of several OS threads come one after another.
struct Pool {
  char** stacks;  // where each begins: its highest address
  size_t count, room, held;
  size_t flush;  // whether denormal numbers count as zero in kernels
};
static Pool* pool;

static void hold_pool() {
  while (__atomic_exchange_n(&pool->held, 1, __ATOMIC_ACQUIRE)) sched_yield();
}
static void leave_pool() { __atomic_store_n(&pool->held, 0, __ATOMIC_RELEASE); }

static void give_stack(char* top) {
  if (pool->count == pool->room) {
    pool->room = 2 * pool->room + 64;
    pool->stacks = (char**)realloc(pool->stacks, pool->room * sizeof(char*));
  }
  pool->stacks[pool->count++] = top;
}

static char* take_stack() {
  if (pool->count) return pool->stacks[--pool->count];
  char* lowest = (char*)mmap(nullptr, GUARD_BYTES + STACK_BYTES, PROT_READ | PROT_WRITE,
                             MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (lowest == MAP_FAILED) abort();
  mprotect(lowest, GUARD_BYTES, PROT_NONE);  // a kernel that needs more dies here, and spoils nothing
  // Tops at the same place in their pages would all want the same few lines of the cache.
  static unsigned made = 0;
  return lowest + GUARD_BYTES + STACK_BYTES - made++ % 16 * 256;
}

// Let denormal numbers count as zero from now on, read and written ones, as code compiled with -ftz=true
// has it. Returns what undoes that. On x86-64 alone.
static unsigned flush_denormals() {
#if defined(__x86_64__)
  unsigned before = __builtin_ia32_stmxcsr();
  __builtin_ia32_ldmxcsr(before | 0x8040);
  return before;
#else
  return 0;
#endif
}
static void restore_denormals(unsigned before) {
#if defined(__x86_64__)
  __builtin_ia32_ldmxcsr(before);
#endif
}

#if !defined(CUDA_ON_CPU_PORTABLE) && defined(__x86_64__)

// Push what a call must keep, leave the stack pointer in *from, and go on with another stack.
extern "C" __attribute__((visibility("hidden"))) void cuda_on_cpu_switch(void** from, void* to);
asm(R"(
.text
.p2align 4
.globl cuda_on_cpu_switch
.hidden cuda_on_cpu_switch
.type cuda_on_cpu_switch, @function
cuda_on_cpu_switch:
  pushq %rbp
  pushq %rbx
  pushq %r12
  pushq %r13
  pushq %r14
  pushq %r15
  movq %rsp, (%rdi)
  movq %rsi, %rsp
  popq %r15
  popq %r14
  popq %r13
  popq %r12
  popq %rbx
  popq %rbp
  ret
.size cuda_on_cpu_switch, .-cuda_on_cpu_switch
)");

struct Fiber {
  void* pointer = nullptr;
  void start(char* top, void (*main)()) {
    void** words = (void**)top - 8;  // six registers, where to return to, and an address nobody uses
    for (int i = 0; i < 8; i++) words[i] = nullptr;
    words[6] = (void*)main;
    pointer = words;
  }
};
static void go(Fiber& from, Fiber& to) { cuda_on_cpu_switch(&from.pointer, to.pointer); }

#else  // any processor, by two system calls a switch

}  // namespace cuda_on_cpu
#include <ucontext.h>
namespace cuda_on_cpu {

struct Fiber {
  ucontext_t* context = new ucontext_t;
  ~Fiber() { delete context; }
  void start(char* top, void (*main)()) {
    getcontext(context);
    context->uc_stack.ss_sp = top - STACK_BYTES / 2;
    context->uc_stack.ss_size = STACK_BYTES / 2;
    context->uc_link = nullptr;
    makecontext(context, main, 0);
  }
};
static void go(Fiber& from, Fiber& to) { swapcontext(from.context, to.context); }

#endif

}  // namespace cuda_on_cpu
