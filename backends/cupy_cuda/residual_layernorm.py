"""sum = a + b        out, mean, rstd = layernorm(sum)

    da = db = dsum + (what layernorm_backward gives for sum)

A row of the sum is normalised as it is in registers, before it is rounded, and written beside the
result. The backward is layernorm's, which adds dsum to a number as it is made.
"""

from backends.cupy_cuda.layernorm import gradients, normalise
from harness import hookimpl


@hookimpl
def residual_layernorm_forward(sum_NC, out_NC, mean_N, rstd_N, a_NC, b_NC, weight_C, bias_C, eps):
    normalise(
        "residual_layernorm_forward",
        *(sum_NC, out_NC, mean_N, rstd_N, a_NC, b_NC, weight_C, bias_C),
        eps=eps,
    )


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
