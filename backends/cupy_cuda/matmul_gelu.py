"""pre = x · weightᵀ + bias        out = gelu(pre)

    dpre = dout · gelu'(pre)        dx = dpre · weight        dweight = dpreᵀ · x        dbias = Σ_n dpre

Forward in bfloat16, the library's epilogue writes pre and out at once. Else a kernel adds the bias and
takes GELU of the float32 product, a chunk of rows at a time where that stands in scratch. Backward, one
kernel writes dpre, in the dtype of dout, and sums its columns.
"""

import numpy as np

from backends.cupy_cuda import gelu
from backends.cupy_cuda._columns import gelu_backward_columns, sums_shape
from backends.cupy_cuda._launch import BFLOAT16
from backends.cupy_cuda._machine import machine
from backends.cupy_cuda._products import WORKSPACE, Products, bias_gelu, rows, takes_gelu
from backends.cupy_cuda._scratch import available, room, scratch, takes
from harness import hookimpl

MAX_BYTES = 64 << 20
"""Of a chunk of float32 products outside a plan."""


@hookimpl
def matmul_gelu_forward(out_NO, pre_NO, x_NI, weight_OI, bias_O):
    _forward(out_NO, pre_NO, x_NI, weight_OI, bias_O, tf32=False)


@hookimpl
def matmul_gelu_backward(dx_NI, dweight_OI, dbias_O, dout_NO, pre_NO, x_NI, weight_OI, accumulate):
    gradients = dx_NI, dweight_OI, dbias_O
    _backward(*gradients, dout_NO, pre_NO, x_NI, weight_OI, accumulate, tf32=False)


def matmul_gelu_forward_tf32(out_NO, pre_NO, x_NI, weight_OI, bias_O):
    """The same at precision=tf32: operands are rounded to it."""
    _forward(out_NO, pre_NO, x_NI, weight_OI, bias_O, tf32=True)


def matmul_gelu_backward_tf32(
    dx_NI, dweight_OI, dbias_O, dout_NO, pre_NO, x_NI, weight_OI, accumulate
):
    gradients = dx_NI, dweight_OI, dbias_O
    _backward(*gradients, dout_NO, pre_NO, x_NI, weight_OI, accumulate, tf32=True)


def _forward(out_NO, pre_NO, x_NI, weight_OI, bias_O, tf32):
    if takes_gelu(pre_NO.dtype, pre_NO.shape[1]):
        (workspace,) = scratch(WORKSPACE)
        Products(workspace).nt(out_NO, x_NI, weight_OI, bias_N=bias_O, pre_MN=pre_NO)
    elif pre_NO.dtype == np.float32:
        (workspace,) = scratch(WORKSPACE)
        Products(workspace, tf32).nt(pre_NO, x_NI, weight_OI)
        bias_gelu(out_NO, pre_NO, pre_NO, bias_O)
    else:
        _forward_in_chunks(out_NO, pre_NO, x_NI, weight_OI, bias_O)


def _forward_in_chunks(out_NO, pre_NO, x_NI, weight_OI, bias_O):
    N, O = pre_NO.shape
    count = _chunk(N, O, available(room(WORKSPACE) + MAX_BYTES))
    workspace, product_RO = scratch(WORKSPACE, (count, O))
    products = Products(workspace)
    for first in range(0, N, count):
        here = first, min(first + count, N)
        product = rows(product_RO, 0, here[1] - first)
        products.nt(product, rows(x_NI, *here), weight_OI)
        bias_gelu(rows(out_NO, *here), rows(pre_NO, *here), product, bias_O)


def _backward(dx_NI, dweight_OI, dbias_O, dout_NO, pre_NO, x_NI, weight_OI, accumulate, tf32):
    N, O = pre_NO.shape
    workspace, sums_RO, dpre_NO = scratch(*_backward_shapes(N, O, pre_NO.dtype))
    dpre_NO = machine().view(dpre_NO, 0, (N, O), pre_NO.dtype)
    if dbias_O is None:
        gelu.gelu_backward(dpre_NO, dout_NO, pre_NO)
    else:
        gelu_backward_columns(dpre_NO, dbias_O, dout_NO, pre_NO, sums_RO, accumulate)
    products = Products(workspace, tf32)
    if dx_NI is not None:
        products.nn(dx_NI, dpre_NO, weight_OI)
    if dweight_OI is not None:
        products.tn(dweight_OI, dpre_NO, x_NI, add=accumulate)


def _chunk(N, O, nbytes):
    """Rows of float32 products that fit into so many bytes beside the workspace."""
    return max(1, min(N, (nbytes - room(WORKSPACE)) // (4 * O)))


def _backward_shapes(N, O, dtype):
    floats = -(-N * O * np.dtype(dtype).itemsize // 4)
    return WORKSPACE, sums_shape(N, O, dtype), (floats,)


@takes("matmul_gelu_forward")
def _forward_room(dims, precision, most):
    N, O = dims["N"], dims["O"]
    if precision != "bf16" or takes_gelu(BFLOAT16, O):
        return room(WORKSPACE)
    return room(WORKSPACE, (_chunk(N, O, room(WORKSPACE) + most), O))


@takes("matmul_gelu_backward")
def _backward_room(dims, precision, most):
    dtype = BFLOAT16 if precision == "bf16" else np.float32
    return room(*_backward_shapes(dims["N"], dims["O"], dtype))
