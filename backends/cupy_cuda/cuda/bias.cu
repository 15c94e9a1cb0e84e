// What stands beside a product where no epilogue does it: a bias, GELU of the sum.
//
// A block does whole rows, its threads 16 bytes of elements at a time where rows are aligned.

#include "common.cuh"
#include "gelu.cuh"

// out[n] = bias: what a product with beta = 1 is then added to, and rounded once.
extern "C" __global__ void fill_rows(element* out_NC, const element* bias_C, int64 N, int64 C) {
  const int SIZE = Pack<element>::SIZE;
  for (int64 n = blockIdx.x; n < N; n += gridDim.x) {
    element* out_C = out_NC + n * C;
    if (C % SIZE == 0)
      for (int64 c = threadIdx.x * SIZE; c < C; c += blockDim.x * SIZE)
        store_pack(out_C + c, load_pack(bias_C + c));
    else
      for (int64 c = threadIdx.x; c < C; c += blockDim.x) out_C[c] = bias_C[c];
  }
}

// pre = product + bias, out = gelu(pre), of pre before it is rounded. bias may be null. product may be
// the memory of pre.
extern "C" __global__ void bias_gelu(element* out_NC, element* pre_NC, const float* product_NC,
                                     const element* bias_C, int64 N, int64 C) {
  const int SIZE = Pack<element>::SIZE;
  for (int64 n = blockIdx.x; n < N; n += gridDim.x) {
    int64 row = n * C;
    if (C % SIZE == 0) {
      for (int64 c = threadIdx.x * SIZE; c < C; c += blockDim.x * SIZE) {
        Pack<element> pre, out;
        float x[SIZE];
        for (int part = 0; part < SIZE; part += 4) {
          Pack<float> product = load_pack(product_NC + row + c + part);
          for (int k = 0; k < 4; k++) x[part + k] = product.part[k];
        }
        if (bias_C) {
          Pack<element> bias = load_pack(bias_C + c);
          for (int k = 0; k < SIZE; k++) x[k] += wide(bias.part[k]);
        }
        for (int k = 0; k < SIZE; k++) {
          pre.part[k] = narrow<element>(x[k]);
          out.part[k] = narrow<element>(gelu(x[k]));
        }
        store_pack(pre_NC + row + c, pre);
        store_pack(out_NC + row + c, out);
      }
    } else {
      for (int64 c = threadIdx.x; c < C; c += blockDim.x) {
        float x = product_NC[row + c] + (bias_C ? wide(bias_C[c]) : 0.0f);
        pre_NC[row + c] = narrow<element>(x);
        out_NC[row + c] = narrow<element>(gelu(x));
      }
    }
  }
}
