"""out = x · weightᵀ + bias

    dx = dout · weight        dweight = doutᵀ · x        dbias = Σ_n dout

A block makes a tile of 64 x 64 numbers of a product, a thread 4 x 4 of them; tiles of both operands pass
through shared memory (`_products.py`). The three products differ in how their operands lie in memory.
The bias is added to a sum before it is rounded, and what a gradient adds to is read as the sum is
written. For dbias a block has 32 columns, and a part of the rows (`_column_sums.py`).
"""

from backends.numba_cuda._column_sums import sum_columns, sums_shape
from backends.numba_cuda._products import multiply_nn, multiply_nt, multiply_tn, parts_shape
from backends.numba_cuda._scratch import room, scratch, takes
from harness import hookimpl


@hookimpl
def matmul_forward(out_NO, x_NI, weight_OI, bias_O):
    multiply_nt(out_NO, x_NI, weight_OI, bias_N=bias_O)


@hookimpl
def matmul_backward(dx_NI, dweight_OI, dbias_O, dout_NO, x_NI, weight_OI, accumulate):
    parts, sums_BO = scratch(*backward_shapes(*x_NI.shape, dout_NO.shape[1]))
    if dx_NI is not None:
        multiply_nn(dx_NI, dout_NO, weight_OI)
    if dweight_OI is not None:
        multiply_tn(dweight_OI, dout_NO, x_NI, parts, add=accumulate)
    if dbias_O is not None:
        sum_columns(dbias_O, dout_NO, sums_BO, accumulate)


def backward_shapes(N, I, O):
    """Scratch of the gradients: sums that are brought together in the end."""
    return parts_shape(O, I, N), sums_shape(N, O)


@takes("matmul_backward")
def _room(dims, precision, most):
    return room(*backward_shapes(*(dims[letter] for letter in "NIO")))
