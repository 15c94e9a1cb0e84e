// Run CUDA C++ kernels on the CPU, one block after another: for tests, where there is no GPU.
//
// Every CUDA thread is a fiber. Fibers run one at a time, each until it waits at a barrier (a shuffle is
// one too) or ends; so a run is deterministic. The order in which threads and blocks run is a parameter
// of the launch: a kernel without races gives the same bits in each. Shared memory is filled with NaN
// before each block. docs/cuda-on-cpu.md says what this finds, and what it cannot.
#pragma once

#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#define CUDA_ON_CPU 1
#define __global__
#define __device__
#define __host__
#define __constant__ static
// Memory of the OS thread: a way to have all of it in one place, which can be filled.
#define __shared__ static thread_local
#define __forceinline__ inline
#define __noinline__ __attribute__((noinline))
#define __launch_bounds__(...)
#define __align__(n) __attribute__((aligned(n)))

#include "bounds.h"
#include "warp.h"

struct alignas(8) float2 { float x, y; };
struct alignas(16) float4 { float x, y, z, w; };
struct alignas(8) uint2 { unsigned x, y; };
struct alignas(16) uint4 { unsigned x, y, z, w; };
struct alignas(8) int2 { int x, y; };
struct alignas(16) int4 { int x, y, z, w; };
static float2 make_float2(float x, float y) { return {x, y}; }
static float4 make_float4(float x, float y, float z, float w) { return {x, y, z, w}; }
static uint2 make_uint2(unsigned x, unsigned y) { return {x, y}; }
static uint4 make_uint4(unsigned x, unsigned y, unsigned z, unsigned w) { return {x, y, z, w}; }
static int2 make_int2(int x, int y) { return {x, y}; }
static int4 make_int4(int x, int y, int z, int w) { return {x, y, z, w}; }
static const int warpSize = 32;

// most: threads of a block, by the kernel's launch bounds.
#define CUDA_ON_CPU_KERNEL(name, most)                                                   \
  extern "C" const char* launch_##name(const unsigned* grid, const unsigned* block,      \
                                       unsigned shared_bytes, void** args, int order) {  \
    if (block[0] * block[1] * block[2] > (most)) return "a block beyond " #most " threads"; \
    return cuda_on_cpu::launch(name, grid, block, shared_bytes, args, order);            \
  }                                                                                      \
  extern "C" const char* letters_##name() { return cuda_on_cpu::letters(name); }

extern "C" void use_pool(cuda_on_cpu::Pool* pool) { cuda_on_cpu::pool = pool; }

static float rsqrtf(float x) { return 1.0f / sqrtf(x); }
static double rsqrt(double x) { return 1.0 / sqrt(x); }
// glibc declares functions of these names.
#define __expf(x) expf(x)
#define __logf(x) logf(x)
#define __log2f(x) log2f(x)
#define __powf(x, y) powf(x, y)
#define __sinf(x) sinf(x)
#define __cosf(x) cosf(x)
static float __fdividef(float a, float b) { return a / b; }
static float __fdiv_rn(float a, float b) { return a / b; }
static float __fmul_rn(float a, float b) { return a * b; }
static float __fadd_rn(float a, float b) { return a + b; }
static float __fsub_rn(float a, float b) { return a - b; }
static float __fmaf_rn(float a, float b, float c) { return fmaf(a, b, c); }
static float __fsqrt_rn(float x) { return sqrtf(x); }
static float __frcp_rn(float x) { return 1.0f / x; }
static float __saturatef(float x) { return x > 0 ? (x < 1 ? x : 1.0f) : 0.0f; }
static int __float_as_int(float x) { int i; memcpy(&i, &x, 4); return i; }
static unsigned __float_as_uint(float x) { unsigned i; memcpy(&i, &x, 4); return i; }
static float __int_as_float(int i) { float x; memcpy(&x, &i, 4); return x; }
static float __uint_as_float(unsigned i) { float x; memcpy(&x, &i, 4); return x; }
static int __float2int_rn(float x) { return (int)rintf(x); }
static int __float2int_rd(float x) { return (int)floorf(x); }
static int __float2int_rz(float x) { return (int)x; }
static float __int2float_rn(int i) { return (float)i; }
static unsigned __umulhi(unsigned a, unsigned b) { return (uint64_t)a * b >> 32; }
static int __popc(unsigned x) { return __builtin_popcount(x); }
static int __clz(int x) { return x ? __builtin_clz(x) : 32; }
static int __ffs(int x) { return __builtin_ffs(x); }

template <class T> static T __ldg(const T* p) { return *p; }
template <class T> static T __ldca(const T* p) { return *p; }
template <class T> static T __ldcg(const T* p) { return *p; }
template <class T> static T __ldcs(const T* p) { return *p; }
template <class T> static void __stcg(T* p, T value) { *p = value; }
template <class T> static void __stcs(T* p, T value) { *p = value; }
static void __threadfence_block() {}
static void __threadfence() {}

// No thread is interrupted. Sums of floats depend on the order, and other orders of threads show it.
template <class T> static T atomicAdd(T* p, T value) { T old = *p; *p = old + value; return old; }
template <class T> static T atomicMax(T* p, T value) { T old = *p; *p = old < value ? value : old; return old; }
template <class T> static T atomicMin(T* p, T value) { T old = *p; *p = value < old ? value : old; return old; }
template <class T> static T atomicExch(T* p, T value) { T old = *p; *p = value; return old; }
template <class T> static T atomicCAS(T* p, T wanted, T value) {
  T old = *p;
  if (old == wanted) *p = value;
  return old;
}

template <class A, class B>
static std::common_type_t<A, B> min(A a, B b) {
  std::common_type_t<A, B> x = a, y = b;
  return y < x ? y : x;
}
template <class A, class B>
static std::common_type_t<A, B> max(A a, B b) {
  std::common_type_t<A, B> x = a, y = b;
  return x < y ? y : x;
}
