"""mean = Σ_c x / C        rstd = 1 / sqrt(Σ_c (x - mean)² / C + eps)

    xhat = (x - mean) · rstd        out = xhat · weight + bias

    dxhat   = dout · weight
    dx      = rstd · (dxhat - mean_c(dxhat) - xhat · mean_c(dxhat · xhat))
    dweight = Σ_n dout · xhat       dbias = Σ_n dout

A block of rows at once: the column of their means is broadcast over it. Sums of products are dot
products of rows (`np.vecdot`), so no array of squares is made.
"""

import numpy as np

from backends.numpy_cpu._blocks import in_blocks, rows_per_block
from backends.numpy_cpu._scratch import float32, scratch
from backends.numpy_cpu.matmul import sum_rows
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
    dx_NC,
    dweight_C,
    dbias_C,
    dout_NC,
    x_NC,
    weight_C,
    mean_N,
    rstd_N,
    accumulate,
):
    gradients(dx_NC, dweight_C, dbias_C, None, dout_NC, x_NC, weight_C, mean_N, rstd_N, accumulate)


def normalise(out, mean, rstd, x, weight_C, bias_C, eps):
    """The forward of one block of rows, whose inputs are float32."""
    C = x.shape[1]
    np.vecdot(x, np.ones(C, np.float32), out=mean)
    np.divide(mean, C, out=mean)
    xhat = scratch("layernorm.xhat", x.shape)
    np.subtract(x, mean[:, None], out=xhat)
    np.vecdot(xhat, xhat, out=rstd)
    np.divide(rstd, C, out=rstd)
    np.add(rstd, eps, out=rstd)
    np.sqrt(rstd, out=rstd)
    np.reciprocal(rstd, out=rstd)
    np.multiply(xhat, rstd[:, None], out=xhat)
    np.multiply(xhat, weight_C, out=xhat)
    np.add(xhat, bias_C, out=out)


def gradients(
    dx_NC, dweight_C, dbias_C, dsum_NC, dout_NC, x_NC, weight_C, mean_N, rstd_N, accumulate
):
    """The backward, with dsum_NC (or None) added to dx_NC.

    A parameter's gradient is summed by block, then over the blocks in their order: the same numbers,
    whichever thread had which block.
    """
    N, C = x_NC.shape
    height = rows_per_block(C)
    weight_C = float32("layernorm.weight", weight_C)
    dweight_KC, dbias_KC = scratch("layernorm.by_block", (2, -(-N // height), C))

    def block(rows):
        x, dout = float32("layernorm.x", x_NC[rows]), float32("layernorm.dout", dout_NC[rows])
        xhat = scratch("layernorm.xhat", x.shape)
        dout_xhat = scratch("layernorm.dout_xhat", x.shape)
        np.subtract(x, mean_N[rows, None], out=xhat)
        np.multiply(xhat, rstd_N[rows, None], out=xhat)
        np.multiply(dout, xhat, out=dout_xhat)
        k = rows.start // height
        if dweight_C is not None:
            sum_rows(dweight_KC[k], dout_xhat)
        if dbias_C is not None:
            sum_rows(dbias_KC[k], dout)
        if dx_NC is not None:
            dx = _centred(dout, xhat, dout_xhat, weight_C)
            np.multiply(dx, rstd_N[rows, None], out=dx)
            np.add(dx, 0 if dsum_NC is None else dsum_NC[rows], out=dx_NC[rows])

    in_blocks(block, N, C)
    if dweight_C is not None:
        sum_rows(dweight_C, dweight_KC, add=accumulate)
    if dbias_C is not None:
        sum_rows(dbias_C, dbias_KC, add=accumulate)


def _centred(dout, xhat, dout_xhat, weight_C):
    """dxhat - mean_c(dxhat) - xhat · mean_c(dxhat · xhat), in the memory of dout_xhat."""
    rows, C = dout.shape
    mean_dxhat, mean_dxhat_xhat = scratch("layernorm.means", (2, rows))
    np.vecdot(dout, weight_C, out=mean_dxhat)
    np.divide(mean_dxhat, C, out=mean_dxhat)
    np.vecdot(dout_xhat, weight_C, out=mean_dxhat_xhat)
    np.divide(mean_dxhat_xhat, C, out=mean_dxhat_xhat)
    centred = dout_xhat
    np.multiply(dout, weight_C, out=centred)
    np.subtract(centred, mean_dxhat[:, None], out=centred)
    np.multiply(xhat, mean_dxhat_xhat[:, None], out=xhat)
    np.subtract(centred, xhat, out=centred)
    return centred
