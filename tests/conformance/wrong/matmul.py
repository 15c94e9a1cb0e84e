import numpy as np

from tests.conformance.honest import matmul, put
from tests.conformance.wrong import wrong
from tests.conformance.wrong.rounding import as_bf16, as_half, as_tf32


@wrong("matmul_forward", "the last partial tile of 16 along I is left out", subtle=True)
def last_tile_dropped(out_NO, x_NI, weight_OI, bias_O):
    whole = x_NI.shape[1] // 16 * 16
    matmul.forward(out_NO, x_NI[:, :whole], weight_OI[:, :whole], bias_O)


@wrong("matmul_forward", "columns beyond the last whole tile of 8 are not written", subtle=True)
def last_columns_not_written(out_NO, x_NI, weight_OI, bias_O):
    whole = out_NO.shape[1] // 8 * 8
    bias = None if bias_O is None else bias_O[:whole]
    out_NO[:, :whole] = x_NI @ weight_OI[:whole].T
    if bias is not None:
        out_NO[:, :whole] += bias


@wrong("matmul_forward", "the bias is never added")
def bias_ignored(out_NO, x_NI, weight_OI, bias_O):
    matmul.forward(out_NO, x_NI, weight_OI, None)


@wrong("matmul_forward", "the bias is taken to be always there", subtle=True)
def bias_always_there(out_NO, x_NI, weight_OI, bias_O):
    np.matmul(x_NI, weight_OI.T, out=out_NO)
    out_NO += bias_O


@wrong(
    "matmul_forward",
    "the bias added by row wherever N == O",
    subtle=True,
)
def bias_by_row_if_square(out_NO, x_NI, weight_OI, bias_O):
    matmul.forward(out_NO, x_NI, weight_OI, None)
    if bias_O is not None:
        out_NO += bias_O[:, None] if len(bias_O) == len(out_NO) else bias_O


@wrong("matmul_forward", "a square weight is not transposed", subtle=True)
def square_weight_not_transposed(out_NO, x_NI, weight_OI, bias_O):
    O, I = weight_OI.shape
    matmul.forward(out_NO, x_NI, weight_OI.T if O == I else weight_OI, bias_O)


@wrong("matmul_forward", "added to out, as BLAS does with beta = 1", subtle=True)
def beta_is_one(out_NO, x_NI, weight_OI, bias_O):
    out_NO += x_NI @ weight_OI.T
    if bias_O is not None:
        out_NO += bias_O


@wrong("matmul_forward", "operands rounded to bfloat16, and not declared")
def undeclared_bf16(out_NO, x_NI, weight_OI, bias_O):
    matmul.forward(out_NO, as_bf16(x_NI), as_bf16(weight_OI), bias_O)


@wrong("matmul_forward", "tensor cores: operands rounded to TF32, and not declared")
def undeclared_tf32(out_NO, x_NI, weight_OI, bias_O):
    matmul.forward(out_NO, as_tf32(x_NI), as_tf32(weight_OI), bias_O)


@wrong("matmul_forward", "summed in float16")
def half_sums(out_NO, x_NI, weight_OI, bias_O):
    matmul.forward(out_NO, x_NI, weight_OI, bias_O)
    out_NO[...] = as_half(out_NO)


@wrong("matmul_forward", "sums kept between calls and never cleared", subtle=True)
def stale_scratch(out_NO, x_NI, weight_OI, bias_O):
    kept = stale_scratch.__dict__.setdefault("sums", {})
    sums = kept.setdefault(out_NO.shape, np.zeros_like(out_NO))
    sums += x_NI @ weight_OI.T
    out_NO[...] = sums if bias_O is None else sums + bias_O


@wrong("matmul_forward", "the result of the last call of this shape returned", subtle=True)
def cached_by_shape(out_NO, x_NI, weight_OI, bias_O):
    kept = cached_by_shape.__dict__.setdefault("results", {})
    if out_NO.shape not in kept:
        matmul.forward(out_NO, x_NI, weight_OI, bias_O)
        kept[out_NO.shape] = out_NO.copy()
    out_NO[...] = kept[out_NO.shape]


@wrong(
    "matmul_forward",
    "columns summed in an order that differs from call to call",
    subtle=True,
    law="repeat",
)
def order_varies(out_NO, x_NI, weight_OI, bias_O):
    order = np.random.default_rng().permutation(x_NI.shape[1])
    matmul.sequential(out_NO, x_NI[:, order], weight_OI[:, order], bias_O)


@wrong("matmul_forward", "another backend does the work", subtle=True, law="own work")
def delegates(out_NO, x_NI, weight_OI, bias_O):
    from backends.python_loops.matmul import matmul_forward

    buffers = (x_NI, weight_OI) if bias_O is None else (x_NI, weight_OI, bias_O)
    views = [memoryview(buffer) for buffer in (out_NO, *buffers)]
    matmul_forward(*views, *([None] if bias_O is None else []))


@wrong("matmul_forward", "the float64 reference does the work", subtle=True, law="own work")
def asks_the_reference(out_NO, x_NI, weight_OI, bias_O):
    from harness.ops.matmul import reference_forward

    (out_NO[...],) = reference_forward(x_NI, weight_OI, bias_O)


@wrong(
    "matmul_backward",
    "dbias summed over the wrong axis wherever N == O",
    subtle=True,
)
def dbias_over_wrong_axis(dx_NI, dweight_OI, dbias_O, dout_NO, x_NI, weight_OI, accumulate):
    N, O = dout_NO.shape
    matmul.backward(dx_NI, dweight_OI, None, dout_NO, x_NI, weight_OI, accumulate)
    put(dbias_O, dout_NO.sum(axis=1 if N == O else 0), accumulate)


@wrong("matmul_backward", "a square dweight comes out transposed", subtle=True)
def square_dweight_transposed(dx_NI, dweight_OI, dbias_O, dout_NO, x_NI, weight_OI, accumulate):
    O, I = weight_OI.shape
    matmul.backward(dx_NI, None, dbias_O, dout_NO, x_NI, weight_OI, accumulate)
    dweight = dout_NO.T @ x_NI
    put(dweight_OI, dweight.T if O == I else dweight, accumulate)


@wrong("matmul_backward", "accumulate reaches dweight and not dbias", subtle=True)
def dbias_overwritten(dx_NI, dweight_OI, dbias_O, dout_NO, x_NI, weight_OI, accumulate):
    matmul.backward(dx_NI, dweight_OI, None, dout_NO, x_NI, weight_OI, accumulate)
    matmul.backward(None, None, dbias_O, dout_NO, x_NI, weight_OI, False)


@wrong("matmul_backward", "accumulate is ignored: always overwritten", subtle=True)
def accumulate_ignored(dx_NI, dweight_OI, dbias_O, dout_NO, x_NI, weight_OI, accumulate):
    matmul.backward(dx_NI, dweight_OI, dbias_O, dout_NO, x_NI, weight_OI, False)


@wrong("matmul_backward", "dx is added to where only parameters should be", subtle=True)
def dx_accumulates(dx_NI, dweight_OI, dbias_O, dout_NO, x_NI, weight_OI, accumulate):
    matmul.backward(None, dweight_OI, dbias_O, dout_NO, x_NI, weight_OI, accumulate)
    put(dx_NI, dout_NO @ weight_OI, True)


@wrong("matmul_backward", "returns early where dweight is None, before dbias", subtle=True)
def returns_early(dx_NI, dweight_OI, dbias_O, dout_NO, x_NI, weight_OI, accumulate):
    put(dx_NI, dout_NO @ weight_OI)
    if dweight_OI is None:
        return
    matmul.backward(None, dweight_OI, dbias_O, dout_NO, x_NI, weight_OI, accumulate)


@wrong("matmul_backward", "rows of the last partial tile of 8 left out of dweight", subtle=True)
def dweight_rows_dropped(dx_NI, dweight_OI, dbias_O, dout_NO, x_NI, weight_OI, accumulate):
    whole = len(x_NI) // 8 * 8
    matmul.backward(dx_NI, None, dbias_O, dout_NO, x_NI, weight_OI, accumulate)
    put(dweight_OI, dout_NO[:whole].T @ x_NI[:whole], accumulate)


@wrong("matmul_backward", "dweight summed in bfloat16")
def bf16_dweight(dx_NI, dweight_OI, dbias_O, dout_NO, x_NI, weight_OI, accumulate):
    matmul.backward(dx_NI, None, dbias_O, dout_NO, x_NI, weight_OI, accumulate)
    put(dweight_OI, as_bf16(dout_NO.T @ x_NI), accumulate)


@wrong("matmul_backward", "gradients divided by the number of rows")
def mean_over_rows(dx_NI, dweight_OI, dbias_O, dout_NO, x_NI, weight_OI, accumulate):
    matmul.backward(dx_NI, None, None, dout_NO, x_NI, weight_OI, accumulate)
    scaled = dout_NO / np.float32(len(dout_NO))
    matmul.backward(None, dweight_OI, dbias_O, scaled, x_NI, weight_OI, accumulate)


@wrong("matmul_backward", "everything is zero: the kernel was never launched")
def writes_zeros(dx_NI, dweight_OI, dbias_O, dout_NO, x_NI, weight_OI, accumulate):
    for gradient in (dx_NI, dweight_OI, dbias_O):
        put(gradient, np.float32(0))
