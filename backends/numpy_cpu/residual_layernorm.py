"""sum = a + b        out, mean, rstd = layernorm(sum)

    da = db = dsum + (what layernorm_backward gives for sum)

The sum of a block of rows is normalised while it is in the cache, and the two gradients of the sum are
added as they are made.
"""

import numpy as np

from backends.numpy_cpu._blocks import in_blocks
from backends.numpy_cpu._scratch import float32, float32_room
from backends.numpy_cpu.layernorm import gradients, normalise
from harness import hookimpl


@hookimpl
def residual_layernorm_forward(sum_NC, out_NC, mean_N, rstd_N, a_NC, b_NC, weight_C, bias_C, eps):
    weight_C, bias_C = float32("layernorm.weight", weight_C), float32("layernorm.bias", bias_C)

    def block(rows):
        x = float32_room("layernorm.x", sum_NC[rows])
        np.add(a_NC[rows], b_NC[rows], out=x, dtype=np.float32)
        normalise(out_NC[rows], mean_N[rows], rstd_N[rows], x, weight_C, bias_C, eps)
        if sum_NC.dtype != np.float32:
            np.copyto(sum_NC[rows], x)

    in_blocks(block, *sum_NC.shape)


@hookimpl
def residual_layernorm_backward(
    da_NC,
    dweight_C,
    dbias_C,
    dsum_NC,
    dout_NC,
    sum_NC,
    weight_C,
    mean_N,
    rstd_N,
    accumulate,
):
    gradients(
        da_NC, dweight_C, dbias_C, dsum_NC, dout_NC, sum_NC, weight_C, mean_N, rstd_N, accumulate
    )
