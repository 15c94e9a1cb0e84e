"""mean = Σ_c x / C        rstd = 1 / sqrt(Σ_c (x - mean)² / C + eps)

    xhat = (x - mean) · rstd        out = xhat · weight + bias

    dxhat   = dout · weight
    dx      = rstd · (dxhat - mean_c(dxhat) - xhat · mean_c(dxhat · xhat))
    dweight = Σ_n dout · xhat       dbias = Σ_n dout

A loop over rows: each is read once, for all that is made of it.
"""

from backends.python_loops._ieee import divide, sqrt
from backends.python_loops._rows import row, start_row, write_row
from harness import hookimpl


@hookimpl
def layernorm_forward(out_NC, mean_N, rstd_N, x_NC, weight_C, bias_C, eps):
    weight, bias = row(weight_C), row(bias_C)
    for n in range(len(x_NC)):
        x = row(x_NC, n)
        mean, rstd = mean_and_rstd(x, eps)
        write_row(out_NC, normalised(x, mean, rstd, weight, bias), n)
        mean_N[n] = mean
        rstd_N[n] = rstd


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
    weight = row(weight_C)
    dweight = None if dweight_C is None else start_row(dweight_C, accumulate)
    dbias = None if dbias_C is None else start_row(dbias_C, accumulate)
    for n in range(len(x_NC)):
        dout, mean, rstd = row(dout_NC, n), mean_N[n], rstd_N[n]
        xhat = [(x - mean) * rstd for x in row(x_NC, n)]
        if dx_NC is not None:
            write_row(dx_NC, input_gradient(dout, xhat, weight, rstd), n)
        add_parameter_gradients(dweight, dbias, dout, xhat)
    if dweight is not None:
        write_row(dweight_C, dweight)
    if dbias is not None:
        write_row(dbias_C, dbias)


def mean_and_rstd(x, eps):
    C = len(x)
    mean = sum(x) / C
    variance = sum((value - mean) ** 2 for value in x) / C
    return mean, divide(1.0, sqrt(variance + eps))


def normalised(x, mean, rstd, weight, bias):
    return [(x[c] - mean) * rstd * weight[c] + bias[c] for c in range(len(x))]


def input_gradient(dout, xhat, weight, rstd):
    """dx of one row."""
    C = len(dout)
    dxhat = [dout[c] * weight[c] for c in range(C)]
    mean_dxhat = sum(dxhat) / C
    mean_dxhat_xhat = sum(dxhat[c] * xhat[c] for c in range(C)) / C
    return [rstd * (dxhat[c] - mean_dxhat - xhat[c] * mean_dxhat_xhat) for c in range(C)]


def add_parameter_gradients(dweight, dbias, dout, xhat):
    """Add what one row gives to the sums over rows. Either sum may be None."""
    if dweight is not None:
        for c in range(len(dout)):
            dweight[c] += dout[c] * xhat[c]
    if dbias is not None:
        for c in range(len(dout)):
            dbias[c] += dout[c]
