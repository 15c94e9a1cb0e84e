"""out = x · weightᵀ + bias; dx = dout · weight, dweight = doutᵀ · x, dbias = sum_n dout.

Each product is one BLAS call that writes straight to its buffer. A transpose is a view, which BLAS
reads in place. Only where a gradient is added to what is there does a product pass through scratch.
"""

import numpy as np

from backends.numpy_cpu.products import add_product, multiply, product_tiles
from backends.numpy_cpu.scratch import scratch
from harness import hookimpl


@hookimpl
def matmul_forward(out_NO, x_NI, weight_OI, bias_O):
    with np.errstate(all="ignore"):
        if bias_O is None:
            multiply(out_NO, x_NI, weight_OI.T)
        elif out_NO.dtype == np.float32:
            multiply(out_NO, x_NI, weight_OI.T)
            np.add(out_NO, bias_O, out=out_NO)
        else:
            # The bias joins before the one rounding.
            for (rows, columns), product in product_tiles(x_NI, weight_OI.T):
                np.add(product, bias_O[columns], out=out_NO[rows, columns])


@hookimpl
def matmul_backward(dx_NI, dweight_OI, dbias_O, dout_NO, x_NI, weight_OI, accumulate):
    with np.errstate(all="ignore"):
        if dx_NI is not None:
            multiply(dx_NI, dout_NO, weight_OI)
        if dweight_OI is not None:
            gradient_product(dweight_OI, dout_NO.T, x_NI, accumulate)
        if dbias_O is not None:
            sum_rows(dbias_O, dout_NO, accumulate)


def gradient_product(out, a, b, accumulate):
    """out = a · b, or out += a · b if `accumulate`."""
    if accumulate:
        add_product(out, a, b)
    else:
        multiply(out, a, b)


def sum_rows(out_C, x_NC, accumulate):
    """out = sum_n x[n], or that added to it if `accumulate`."""
    sum_C = scratch("sum_rows", out_C.shape)
    np.add.reduce(x_NC, axis=0, dtype=np.float32, out=sum_C)
    if accumulate:
        np.add(out_C, sum_C, out=out_C)
    else:
        out_C[...] = sum_C
