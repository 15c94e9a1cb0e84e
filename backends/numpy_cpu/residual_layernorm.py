"""sum = a + b, out = layernorm(sum); da = db = dsum + layernorm_backward(dout).

The sum of a block of rows is normalised while it is in the cache, and the two gradients of the sum are
added as they are made: one pass over memory less each way.
"""

import numpy as np

from backends.numpy_cpu import layernorm
from backends.numpy_cpu.blocks import in_blocks
from backends.numpy_cpu.scratch import float32
from harness import hookimpl


@hookimpl
def residual_layernorm_forward(sum_NC, out_NC, mean_N, rstd_N, a_NC, b_NC, weight_C, bias_C, eps):
    weight_C, bias_C = float32("layernorm.weight", weight_C), float32("layernorm.bias", bias_C)

    def block(rows):
        np.add(a_NC[rows], b_NC[rows], out=sum_NC[rows])
        x = float32("layernorm.x", sum_NC[rows])
        layernorm.normalise(out_NC[rows], mean_N[rows], rstd_N[rows], x, weight_C, bias_C, eps)

    in_blocks(block, *sum_NC.shape)


@hookimpl
def residual_layernorm_backward(
    da_NC, dweight_C, dbias_C, dsum_NC, dout_NC, sum_NC, weight_C, mean_N, rstd_N, accumulate
):
    layernorm.backward(
        da_NC, dweight_C, dbias_C, dsum_NC, dout_NC, sum_NC, weight_C, mean_N, rstd_N, accumulate
    )
