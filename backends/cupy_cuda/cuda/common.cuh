// What every kernel uses: the element types, 16-byte accesses, sums over a warp.
//
// ELEMENT is the type of activations and parameters, float or bf16; statistics, gradients of parameters
// and optimizer state are float. No header of CUDA's is needed: nvrtc alone compiles this.

#ifndef ELEMENT
#define ELEMENT float
#endif

#ifdef CUDA_ON_CPU
#define DYNAMIC_SHARED(type, name) type* name = (type*)cuda_on_cpu::dynamic_shared()
#else
#define DYNAMIC_SHARED(type, name)                    \
  extern __shared__ __align__(16) unsigned char dynamic_shared_bytes[]; \
  type* name = (type*)dynamic_shared_bytes
#endif

struct bf16 {
  unsigned short bits;
};
typedef ELEMENT element;
typedef long long int64;

#define INFINITE __uint_as_float(0x7F800000u)

__device__ __forceinline__ float wide(float x) { return x; }
__device__ __forceinline__ float wide(bf16 x) { return __uint_as_float((unsigned)x.bits << 16); }

// Rounded to nearest even; NaN stays NaN.
__device__ __forceinline__ bf16 to_bf16(float x) {
  bf16 y;
#if !defined(CUDA_ON_CPU) && __CUDA_ARCH__ >= 800
  asm("cvt.rn.bf16.f32 %0, %1;" : "=h"(y.bits) : "f"(x));
#else
  unsigned bits = __float_as_uint(x);
  y.bits = x != x ? 0x7FC0 | (bits >> 16) : (bits + 0x7FFF + ((bits >> 16) & 1)) >> 16;
#endif
  return y;
}
template <class T> __device__ __forceinline__ T narrow(float x);
template <> __device__ __forceinline__ float narrow<float>(float x) { return x; }
template <> __device__ __forceinline__ bf16 narrow<bf16>(float x) { return to_bf16(x); }

// As many elements as fit in 16 bytes, the widest access; its address must be a multiple of 16.
template <class T>
struct Pack {
  static const int SIZE = 16 / sizeof(T);
  union {
    uint4 whole;
    T part[16 / sizeof(T)];
  };
  __device__ __forceinline__ Pack() {}
};
template <class T>
__device__ __forceinline__ Pack<T> load_pack(const T* from) {
  Pack<T> pack;
  pack.whole = *(const uint4*)from;
  return pack;
}
template <class T>
__device__ __forceinline__ void store_pack(T* to, const Pack<T>& pack) {
  *(uint4*)to = pack.whole;
}

__device__ __forceinline__ int64 thread_index() { return (int64)blockIdx.x * blockDim.x + threadIdx.x; }
__device__ __forceinline__ int64 thread_count() { return (int64)gridDim.x * blockDim.x; }

__device__ __forceinline__ float warp_sum(float x) {
  for (int bits = 16; bits; bits >>= 1) x += __shfl_xor_sync(0xffffffffu, x, bits);
  return x;
}
__device__ __forceinline__ float warp_max(float x) {
  for (int bits = 16; bits; bits >>= 1) x = fmaxf(x, __shfl_xor_sync(0xffffffffu, x, bits));
  return x;
}
