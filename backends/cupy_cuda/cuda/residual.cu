// out = a + b        da = dout        db = dout
//
// A thread does 16 bytes of elements at a time, and goes on at a stride of the whole grid.

#include "common.cuh"

extern "C" __global__ void residual_forward(element* out_P, const element* a_P, const element* b_P,
                                            int64 P) {
  const int SIZE = Pack<element>::SIZE;
  int64 whole = P / SIZE;
  for (int64 i = thread_index(); i < whole; i += thread_count()) {
    Pack<element> a = load_pack(a_P + i * SIZE), b = load_pack(b_P + i * SIZE), out;
    for (int k = 0; k < SIZE; k++) out.part[k] = narrow<element>(wide(a.part[k]) + wide(b.part[k]));
    store_pack(out_P + i * SIZE, out);
  }
  int64 i = whole * SIZE + thread_index();
  if (i < P) out_P[i] = narrow<element>(wide(a_P[i]) + wide(b_P[i]));
}

// da_P or db_P may be null.
extern "C" __global__ void residual_backward(element* da_P, element* db_P, const element* dout_P,
                                             int64 P) {
  const int SIZE = Pack<element>::SIZE;
  int64 whole = P / SIZE;
  for (int64 i = thread_index(); i < whole; i += thread_count()) {
    Pack<element> dout = load_pack(dout_P + i * SIZE);
    if (da_P) store_pack(da_P + i * SIZE, dout);
    if (db_P) store_pack(db_P + i * SIZE, dout);
  }
  int64 i = whole * SIZE + thread_index();
  if (i < P && da_P) da_P[i] = dout_P[i];
  if (i < P && db_P) db_P[i] = dout_P[i];
}
