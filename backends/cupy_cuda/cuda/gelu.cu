// out = x/2 · (1 + tanh(u)),  u = sqrt(2/π) · (x + 0.044715 x³)        (tanh form, as GPT-2)
// dx = dout · (s + 2 x s (1 - s) du/dx),  s = (1 + tanh(u)) / 2
//
// A thread does 16 bytes of elements at a time, and goes on at a stride of the whole grid.

#include "common.cuh"
#include "gelu.cuh"

extern "C" __global__ void gelu_forward(element* out_P, const element* x_P, int64 P) {
  const int SIZE = Pack<element>::SIZE;
  int64 whole = P / SIZE;
  for (int64 i = thread_index(); i < whole; i += thread_count()) {
    Pack<element> x = load_pack(x_P + i * SIZE), out;
    for (int k = 0; k < SIZE; k++) out.part[k] = narrow<element>(gelu(wide(x.part[k])));
    store_pack(out_P + i * SIZE, out);
  }
  int64 i = whole * SIZE + thread_index();
  if (i < P) out_P[i] = narrow<element>(gelu(wide(x_P[i])));
}

extern "C" __global__ void gelu_backward(element* dx_P, const element* dout_P, const element* x_P,
                                         int64 P) {
  const int SIZE = Pack<element>::SIZE;
  int64 whole = P / SIZE;
  for (int64 i = thread_index(); i < whole; i += thread_count()) {
    Pack<element> x = load_pack(x_P + i * SIZE), dout = load_pack(dout_P + i * SIZE), dx;
    for (int k = 0; k < SIZE; k++)
      dx.part[k] = narrow<element>(wide(dout.part[k]) * gelu_slope(wide(x.part[k])));
    store_pack(dx_P + i * SIZE, dx);
  }
  int64 i = whole * SIZE + thread_index();
  if (i < P) dx_P[i] = narrow<element>(wide(dout_P[i]) * gelu_slope(wide(x_P[i])));
}
