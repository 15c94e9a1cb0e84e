"""pre = x · weightᵀ + bias, out = gelu(pre); dpre = dout * gelu'(pre), then matmul_backward(dpre).

The forward adds the bias and takes GELU in one walk over the blocks. The backward goes through the
output features in bands: dpre exists for one band at a time, and dx is the sum of what the bands give.
"""

import numpy as np

from backends.numpy_cpu.blocks import in_blocks
from backends.numpy_cpu.gelu import gelu, gelu_gradient
from backends.numpy_cpu.matmul import gradient_product, matmul_forward, sum_rows
from backends.numpy_cpu.scratch import float32, scratch
from harness import hookimpl

BAND = 1024
"""Output features in a band: a product of this depth is as fast as a whole one."""


@hookimpl
def matmul_gelu_forward(out_NO, pre_NO, x_NI, weight_OI, bias_O):
    narrow = pre_NO.dtype != np.float32
    # Where pre is narrow, the bias joins before it is rounded.
    matmul_forward(pre_NO, x_NI, weight_OI, bias_O if narrow else None)

    def block(rows):
        pre = pre_NO[rows]
        if bias_O is not None and not narrow:
            np.add(pre, bias_O, out=pre)
        gelu(out_NO[rows], float32("gelu.x", pre))

    in_blocks(block, *pre_NO.shape)


@hookimpl
def matmul_gelu_backward(dx_NI, dweight_OI, dbias_O, dout_NO, pre_NO, x_NI, weight_OI, accumulate):
    N, O = pre_NO.shape
    # dx is a sum over bands, in float32 whatever its dtype.
    narrow = dx_NI is not None and dx_NI.dtype != np.float32
    dx = scratch("matmul_gelu.dx", dx_NI.shape) if narrow else dx_NI
    with np.errstate(all="ignore"):
        for first in range(0, O, BAND):
            band = slice(first, min(first + BAND, O))
            dpre = scratch("matmul_gelu.dpre", (N, band.stop - first))

            def block(rows):
                pre = float32("gelu.x", pre_NO[rows, band])
                gelu_gradient(dpre[rows], dout_NO[rows, band], pre)

            in_blocks(block, *dpre.shape)
            if dx is not None:
                gradient_product(dx, dpre, weight_OI[band], accumulate=first > 0)
            if dweight_OI is not None:
                gradient_product(dweight_OI[band], dpre.T, x_NI, accumulate)
            if dbias_O is not None:
                sum_rows(dbias_O[band], dpre, accumulate)
        if narrow:
            np.copyto(dx_NI, dx)
