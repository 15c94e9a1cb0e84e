"""sum = a + b        out, mean, rstd = layernorm(sum)

    da = db = dsum + (what layernorm_backward gives for sum)

The kernels are layernorm's: a block has a row, or many rows in the backward, and a thread eight numbers
of one at a time. A row of the sum is normalised as it was before it was rounded: each of the three
passes adds a and b anew, which from the second on lie in the L1 cache, and the last one writes the sum.
The backward adds dsum to a number as it is made.
"""

from backends.numba_cuda.layernorm import gradients, normalise
from harness import hookimpl


@hookimpl
def residual_layernorm_forward(sum_NC, out_NC, mean_N, rstd_N, a_NC, b_NC, weight_C, bias_C, eps):
    normalise(sum_NC, out_NC, mean_N, rstd_N, a_NC, b_NC, weight_C, bias_C, eps)


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
