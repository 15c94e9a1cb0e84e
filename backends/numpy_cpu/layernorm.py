"""xhat = (x - mean) * rstd, out = xhat * weight + bias; dx = rstd (dxhat - mean(dxhat) - xhat mean(dxhat xhat)).

Whole blocks of rows at once: a column of means or of reciprocal deviations is broadcast over them. The
variance is the dot product of each centred row with itself, so no array of squares is made.
"""

import numpy as np

from backends.numpy_cpu.blocks import in_blocks, rows_per_block
from backends.numpy_cpu.matmul import sum_rows
from backends.numpy_cpu.scratch import float32, scratch
from harness import hookimpl


@hookimpl
def layernorm_forward(out_NC, mean_N, rstd_N, x_NC, weight_C, bias_C, eps):
    weight_C, bias_C = float32("layernorm.weight", weight_C), float32("layernorm.bias", bias_C)

    def block(rows):
        x = float32("layernorm.x", x_NC[rows])
        normalise(out_NC[rows], mean_N[rows], rstd_N[rows], x, weight_C, bias_C, eps)

    in_blocks(block, *x_NC.shape)


@hookimpl
def layernorm_backward(
    dx_NC, dweight_C, dbias_C, dout_NC, x_NC, weight_C, mean_N, rstd_N, accumulate
):
    backward(dx_NC, dweight_C, dbias_C, None, dout_NC, x_NC, weight_C, mean_N, rstd_N, accumulate)


def normalise(out, mean, rstd, x, weight, bias, eps):
    """The forward of one block. All inputs are float32."""
    C = x.shape[1]
    np.add.reduce(x, axis=1, out=mean)
    np.divide(mean, C, out=mean)
    xhat = scratch("layernorm.xhat", x.shape)
    np.subtract(x, mean[:, None], out=xhat)
    np.vecdot(xhat, xhat, out=rstd)
    np.divide(rstd, C, out=rstd)
    np.add(rstd, eps, out=rstd)
    np.sqrt(rstd, out=rstd)
    np.reciprocal(rstd, out=rstd)
    np.multiply(xhat, rstd[:, None], out=xhat)
    np.multiply(xhat, weight, out=xhat)
    np.add(xhat, bias, out=out)


def backward(
    dx_NC, dweight_C, dbias_C, dsum_NC, dout_NC, x_NC, weight_C, mean_N, rstd_N, accumulate
):
    """The backward, with dsum_NC added to dx_NC unless it is None.

    A parameter's gradient is summed within each block, then over the blocks in their order, so that
    it is the same however the blocks were shared among threads.
    """
    N, C = x_NC.shape
    height = rows_per_block(C)
    weight_C = float32("layernorm.weight", weight_C)
    partial_C = scratch("layernorm.partial", (2, -(-N // height), C))

    def block(rows):
        x, dout = float32("layernorm.x", x_NC[rows]), float32("layernorm.dout", dout_NC[rows])
        rstd = rstd_N[rows, None]
        xhat = scratch("layernorm.xhat", x.shape)
        product = scratch("layernorm.product", x.shape)
        np.subtract(x, mean_N[rows, None], out=xhat)
        np.multiply(xhat, rstd, out=xhat)
        np.multiply(dout, xhat, out=product)
        index = rows.start // height
        if dweight_C is not None:
            np.add.reduce(product, axis=0, out=partial_C[0, index])
        if dbias_C is not None:
            np.add.reduce(dout, axis=0, out=partial_C[1, index])
        if dx_NC is not None:
            mean_dxhat = np.vecdot(dout, weight_C)
            mean_dxhat_xhat = np.vecdot(product, weight_C)
            mean_dxhat /= C
            mean_dxhat_xhat /= C
            dxhat = np.multiply(dout, weight_C, out=product)
            np.subtract(dxhat, mean_dxhat[:, None], out=dxhat)
            np.multiply(xhat, mean_dxhat_xhat[:, None], out=xhat)
            np.subtract(dxhat, xhat, out=dxhat)
            if dsum_NC is None:
                np.multiply(dxhat, rstd, out=dx_NC[rows])
            else:
                np.multiply(dxhat, rstd, out=dxhat)
                np.add(dxhat, float32("layernorm.dsum", dsum_NC[rows]), out=dx_NC[rows])

    in_blocks(block, N, C)
    for gradient_C, of_blocks in zip((dweight_C, dbias_C), partial_C, strict=True):
        if gradient_C is not None:
            sum_rows(gradient_C, of_blocks, accumulate)
