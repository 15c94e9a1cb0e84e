"""sum = a + b        out, mean, rstd = layernorm(sum)

    da = db = dsum + rstd · (dxhat - mean_c(dxhat) - xhat · mean_c(dxhat · xhat))
    dweight = Σ_n dout · xhat       dbias = Σ_n dout

A loop over rows, in which a row of the sum is normalised as soon as it is made.
"""

from backends.python_loops._rows import row, start_row, write_row
from backends.python_loops.layernorm import (
    add_parameter_gradients,
    input_gradient,
    mean_and_rstd,
    normalised,
)
from harness import hookimpl


@hookimpl
def residual_layernorm_forward(sum_NC, out_NC, mean_N, rstd_N, a_NC, b_NC, weight_C, bias_C, eps):
    weight, bias = row(weight_C), row(bias_C)
    for n in range(len(a_NC)):
        write_row(sum_NC, [a + b for a, b in zip(row(a_NC, n), row(b_NC, n), strict=True)], n)
        x = row(sum_NC, n)  # as it was rounded: the backward will see the same numbers
        mean, rstd = mean_and_rstd(x, eps)
        write_row(out_NC, normalised(x, mean, rstd, weight, bias), n)
        mean_N[n] = mean
        rstd_N[n] = rstd


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
    weight = row(weight_C)
    dweight = None if dweight_C is None else start_row(dweight_C, accumulate)
    dbias = None if dbias_C is None else start_row(dbias_C, accumulate)
    for n in range(len(sum_NC)):
        dout, mean, rstd = row(dout_NC, n), mean_N[n], rstd_N[n]
        xhat = [(x - mean) * rstd for x in row(sum_NC, n)]
        if da_NC is not None:
            da = input_gradient(dout, xhat, weight, rstd)
            if dsum_NC is not None:
                da = [dx + dsum for dx, dsum in zip(da, row(dsum_NC, n), strict=True)]
            write_row(da_NC, da, n)
        add_parameter_gradients(dweight, dbias, dout, xhat)
    if dweight is not None:
        write_row(dweight_C, dweight)
    if dbias is not None:
        write_row(dbias_C, dbias)
