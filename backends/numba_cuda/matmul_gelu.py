"""pre = x · weightᵀ + bias        out = gelu(pre)

    dpre = dout · gelu'(pre)        dx = dpre · weight        dweight = dpreᵀ · x        dbias = Σ_n dpre

The products are matmul's, a tile for a block (`_products.py`). Forward, a thread takes GELU of the sums
that it holds in registers, and writes both. Backward, gelu's kernel makes dpre once for the three that
read it, in float32, for as many rows at a time as memory allows: made anew in each tile, tanh would cost
as much as half of a product.
"""

from backends.numba_cuda._chunks import chunks, rows_within
from backends.numba_cuda._column_sums import sum_columns
from backends.numba_cuda._products import multiply_nn, multiply_nt, multiply_tn
from backends.numba_cuda._scratch import available, room, scratch, takes
from backends.numba_cuda.gelu import gelu_backward
from backends.numba_cuda.matmul import backward_shapes
from harness import hookimpl

MAX_BYTES = 256 << 20
"""Of dpre outside a plan."""


@hookimpl
def matmul_gelu_forward(out_NO, pre_NO, x_NI, weight_OI, bias_O):
    multiply_nt(out_NO, x_NI, weight_OI, bias_N=bias_O, pre_MN=pre_NO)


@hookimpl
def matmul_gelu_backward(dx_NI, dweight_OI, dbias_O, dout_NO, pre_NO, x_NI, weight_OI, accumulate):
    (N, I), O = x_NI.shape, len(weight_OI)
    count = _rows(N, I, O, available(_fixed_room(N, I, O) + MAX_BYTES))
    parts, sums_BO, dpre_RO = scratch(*backward_shapes(N, I, O), (count, O))
    for first, last in chunks(N, count):
        add, dpre = accumulate or first > 0, dpre_RO[: last - first]
        gelu_backward(dpre, dout_NO[first:last], pre_NO[first:last])
        if dx_NI is not None:
            multiply_nn(dx_NI[first:last], dpre, weight_OI)
        if dweight_OI is not None:
            multiply_tn(dweight_OI, dpre, x_NI[first:last], parts, add=add)
        if dbias_O is not None:
            sum_columns(dbias_O, dpre, sums_BO, add)


def _rows(N, I, O, nbytes):
    return rows_within(nbytes - _fixed_room(N, I, O), N, 4 * O)


def _fixed_room(N, I, O):
    return room(*backward_shapes(N, I, O))


@takes("matmul_gelu_backward")
def _room(dims, precision, most):
    N, I, O = (dims[letter] for letter in "NIO")
    count = _rows(N, I, O, _fixed_room(N, I, O) + most)
    return room(*backward_shapes(N, I, O), (count, O))
