// Products of small matrices on the tensor cores, a warp at a time: d_MN += a_MK b_KN, sums in float32.
//
// Include common.cuh first. Every lane of the warp calls, and holds a part ("fragment") of each matrix;
// with g = lane / 4 and t = lane % 4 those are (PTX ISA, "Matrix Fragments for mma.m16n8k16" and k8):
//
//     d[0] d[1]   row g,      columns 2t, 2t+1           of d, 16 x 8, both types
//     d[2] d[3]   row g + 8,  the same columns
//
//     bf16, K=16: a register holds two elements that follow one another in k, the first in its low half
//     a[0] row g,  k 2t, 2t+1       a[2] row g,  k 2t+8, 2t+9        b[0] k 2t, 2t+1      column g
//     a[1] row g+8, as a[0]         a[3] row g+8, as a[2]            b[1] k 2t+8, 2t+9    column g
//
//     tf32, K=8: a register holds one float rounded with to_tf32
//     a[0] row g,  k t              a[2] row g,  k t+4               b[0] k t             column g
//     a[1] row g+8, as a[0]         a[3] row g+8, as a[2]            b[1] k t+4           column g

// A float rounded to the 10 bits of tf32's mantissa, to nearest, ties away from zero.
__device__ __forceinline__ unsigned to_tf32(float x) {
#ifdef CUDA_ON_CPU
  unsigned bits = __float_as_uint(x);
  bool finite = (bits & 0x7F800000u) != 0x7F800000u;
  return (finite ? bits + 0x1000u : bits) & (x != x ? 0xFFFFFFFFu : 0xFFFFE000u);
#else
  unsigned bits;
  asm("cvt.rna.tf32.f32 %0, %1;" : "=r"(bits) : "f"(x));
  return bits;
#endif
}

// Two floats as bf16 in one register, rounded to nearest even, the first in the low half.
__device__ __forceinline__ unsigned pack_bf16(float low, float high) {
#ifdef CUDA_ON_CPU
  return to_bf16(low).bits | (unsigned)to_bf16(high).bits << 16;
#else
  unsigned pair;
  asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(pair) : "f"(high), "f"(low));
  return pair;
#endif
}
__device__ __forceinline__ unsigned pack_bf16(bf16 low, bf16 high) {
  return low.bits | (unsigned)high.bits << 16;
}

// m16n8k16: d += a b.
__device__ __forceinline__ void mma_bf16(float (&d)[4], const unsigned (&a)[4],
                                         const unsigned (&b)[2]) {
#ifdef CUDA_ON_CPU
  cuda_on_cpu::mma<16>(d, a, b);
#else
  asm volatile(
      "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, "
      "{%8, %9}, {%0, %1, %2, %3};"
      : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
#endif
}

// m16n8k8: d += a b, operands from to_tf32.
__device__ __forceinline__ void mma_tf32(float (&d)[4], const unsigned (&a)[4],
                                         const unsigned (&b)[2]) {
#ifdef CUDA_ON_CPU
  cuda_on_cpu::mma<8>(d, a, b);
#else
  asm volatile(
      "mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, "
      "{%8, %9}, {%0, %1, %2, %3};"
      : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
#endif
}
