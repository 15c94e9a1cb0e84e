"""out = x · weightᵀ + bias

    dx = dout · weight        dweight = doutᵀ · x        dbias = Σ_n dout

One call of the library for each product, which adds the bias before it rounds, and the gradient to what
is there. dbias has a kernel of its own: in float32, as the gradients are, whatever dout is.
"""

from backends.cupy_cuda._columns import sum_columns, sums_shape
from backends.cupy_cuda._launch import BFLOAT16
from backends.cupy_cuda._products import WORKSPACE, Products
from backends.cupy_cuda._scratch import room, scratch, takes
from harness import hookimpl


@hookimpl
def matmul_forward(out_NO, x_NI, weight_OI, bias_O):
    _forward(out_NO, x_NI, weight_OI, bias_O, tf32=False)


@hookimpl
def matmul_backward(dx_NI, dweight_OI, dbias_O, dout_NO, x_NI, weight_OI, accumulate):
    gradients = dx_NI, dweight_OI, dbias_O
    _backward(*gradients, dout_NO, x_NI, weight_OI, accumulate, tf32=False)


def matmul_forward_tf32(out_NO, x_NI, weight_OI, bias_O):
    """The same at precision=tf32: operands are rounded to it."""
    _forward(out_NO, x_NI, weight_OI, bias_O, tf32=True)


def matmul_backward_tf32(dx_NI, dweight_OI, dbias_O, dout_NO, x_NI, weight_OI, accumulate):
    gradients = dx_NI, dweight_OI, dbias_O
    _backward(*gradients, dout_NO, x_NI, weight_OI, accumulate, tf32=True)


def _forward(out_NO, x_NI, weight_OI, bias_O, tf32):
    (workspace,) = scratch(WORKSPACE)
    Products(workspace, tf32).nt(out_NO, x_NI, weight_OI, bias_N=bias_O)


def _backward(dx_NI, dweight_OI, dbias_O, dout_NO, x_NI, weight_OI, accumulate, tf32):
    workspace, sums_RO = scratch(WORKSPACE, sums_shape(*dout_NO.shape, dout_NO.dtype))
    products = Products(workspace, tf32)
    if dx_NI is not None:
        products.nn(dx_NI, dout_NO, weight_OI)
    if dweight_OI is not None:
        products.tn(dweight_OI, dout_NO, x_NI, add=accumulate)
    if dbias_O is not None:
        sum_columns(dbias_O, dout_NO, sums_RO, accumulate)


@takes("matmul_forward")
def _forward_room(dims, precision, most):
    return room(WORKSPACE)


@takes("matmul_backward")
def _backward_room(dims, precision, most):
    dtype = BFLOAT16 if precision == "bf16" else "float32"
    return room(WORKSPACE, sums_shape(dims["N"], dims["O"], dtype))
