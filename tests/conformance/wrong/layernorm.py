import numpy as np

from tests.conformance.honest import layernorm, put
from tests.conformance.wrong import wrong
from tests.conformance.wrong.rounding import as_bf16, as_half


def finish(out_NC, mean_N, rstd_N, x_NC, weight_C, bias_C, mean, rstd):
    """Save the statistics and normalise by them."""
    mean_N[...], rstd_N[...] = mean, rstd
    out_NC[...] = (x_NC - mean_N[:, None]) * rstd_N[:, None] * weight_C + bias_C


@wrong("layernorm_forward", "variance over C - 1")
def sample_variance(out_NC, mean_N, rstd_N, x_NC, weight_C, bias_C, eps):
    C = x_NC.shape[1]
    variance = x_NC.var(axis=-1) * np.float32(C / max(1, C - 1))
    rstd = 1 / np.sqrt(variance + np.float32(eps))
    finish(out_NC, mean_N, rstd_N, x_NC, weight_C, bias_C, x_NC.mean(axis=-1), rstd)


@wrong("layernorm_forward", "variance as E[x^2] - E[x]^2, which cancels", subtle=True)
def one_pass_variance(out_NC, mean_N, rstd_N, x_NC, weight_C, bias_C, eps):
    mean = x_NC.mean(axis=-1)
    variance = np.maximum((x_NC**2).mean(axis=-1) - mean**2, 0)
    rstd = 1 / np.sqrt(variance + np.float32(eps))
    finish(out_NC, mean_N, rstd_N, x_NC, weight_C, bias_C, mean, rstd)


@wrong("layernorm_forward", "eps added to the deviation, outside of the root", subtle=True)
def eps_outside_root(out_NC, mean_N, rstd_N, x_NC, weight_C, bias_C, eps):
    rstd = 1 / (x_NC.std(axis=-1) + np.float32(eps))
    finish(out_NC, mean_N, rstd_N, x_NC, weight_C, bias_C, x_NC.mean(axis=-1), rstd)


@wrong("layernorm_forward", "another framework's eps, 1e-6, whatever is asked for", subtle=True)
def eps_of_its_own(out_NC, mean_N, rstd_N, x_NC, weight_C, bias_C, eps):
    layernorm.forward(out_NC, mean_N, rstd_N, x_NC, weight_C, bias_C, 1e-6)


@wrong("layernorm_forward", "no eps: a constant row divides by zero", subtle=True)
def no_eps(out_NC, mean_N, rstd_N, x_NC, weight_C, bias_C, eps):
    with np.errstate(all="ignore"):
        layernorm.forward(out_NC, mean_N, rstd_N, x_NC, weight_C, bias_C, 0.0)


@wrong("layernorm_forward", "the statistics are used and not written")
def statistics_not_written(out_NC, mean_N, rstd_N, x_NC, weight_C, bias_C, eps):
    mean, rstd = np.empty_like(mean_N), np.empty_like(rstd_N)
    layernorm.forward(out_NC, mean, rstd, x_NC, weight_C, bias_C, eps)


@wrong("layernorm_forward", "the variance saved in place of rstd")
def variance_saved(out_NC, mean_N, rstd_N, x_NC, weight_C, bias_C, eps):
    layernorm.forward(out_NC, mean_N, rstd_N, x_NC, weight_C, bias_C, eps)
    rstd_N[...] = x_NC.var(axis=-1)


@wrong("layernorm_forward", "the mean of the row above saved: written one iteration late")
def mean_one_row_late(out_NC, mean_N, rstd_N, x_NC, weight_C, bias_C, eps):
    layernorm.forward(out_NC, mean_N, rstd_N, x_NC, weight_C, bias_C, eps)
    mean_N[1:] = mean_N[:-1].copy()


@wrong(
    "layernorm_forward", "channels summed in whole vectors of 8; the tail is left out", subtle=True
)
def channel_tail_not_summed(out_NC, mean_N, rstd_N, x_NC, weight_C, bias_C, eps):
    C = x_NC.shape[1]
    whole = C - C % 8 or C
    mean = x_NC[:, :whole].sum(axis=-1) / np.float32(C)
    variance = ((x_NC[:, :whole] - mean[:, None]) ** 2).sum(axis=-1) / np.float32(C)
    rstd = 1 / np.sqrt(variance + np.float32(eps))
    finish(out_NC, mean_N, rstd_N, x_NC, weight_C, bias_C, mean, rstd)


@wrong(
    "layernorm_forward",
    "rows in blocks of 4; the rows of the last partial one are not written",
    subtle=True,
)
def row_tail_dropped(out_NC, mean_N, rstd_N, x_NC, weight_C, bias_C, eps):
    rows = slice(0, len(x_NC) // 4 * 4)
    layernorm.forward(out_NC[rows], mean_N[rows], rstd_N[rows], x_NC[rows], weight_C, bias_C, eps)


@wrong("layernorm_forward", "added to out: relies on zeros there", subtle=True)
def out_added_to(out_NC, mean_N, rstd_N, x_NC, weight_C, bias_C, eps):
    out = np.empty_like(out_NC)
    layernorm.forward(out, mean_N, rstd_N, x_NC, weight_C, bias_C, eps)
    out_NC += out


@wrong(
    "layernorm_forward",
    "the row is centred where it lies, in the input",
    subtle=True,
    law="untouched",
)
def centred_in_place(out_NC, mean_N, rstd_N, x_NC, weight_C, bias_C, eps):
    mean = x_NC.mean(axis=-1)
    layernorm.forward(out_NC, mean_N, rstd_N, x_NC, weight_C, bias_C, eps)
    x_NC -= mean[:, None]


@wrong("layernorm_forward", "variance summed in float16")
def half_variance(out_NC, mean_N, rstd_N, x_NC, weight_C, bias_C, eps):
    layernorm.forward(out_NC, mean_N, rstd_N, x_NC, weight_C, bias_C, eps)
    variance = as_half(1 / rstd_N**2)
    finish(out_NC, mean_N, rstd_N, x_NC, weight_C, bias_C, mean_N.copy(), 1 / np.sqrt(variance))


@wrong("layernorm_forward", "bias before weight: (xhat + bias) * weight")
def bias_scaled(out_NC, mean_N, rstd_N, x_NC, weight_C, bias_C, eps):
    layernorm.forward(out_NC, mean_N, rstd_N, x_NC, weight_C, bias_C * weight_C, eps)


@wrong("layernorm_forward", "NaN replaced by zero to 'be safe'", subtle=True)
def nan_swallowed(out_NC, mean_N, rstd_N, x_NC, weight_C, bias_C, eps):
    layernorm.forward(out_NC, mean_N, rstd_N, np.nan_to_num(x_NC), weight_C, bias_C, eps)


@wrong("layernorm_forward", "temporaries as large as x in every call", subtle=True, law="memory")
def temporaries(out_NC, mean_N, rstd_N, x_NC, weight_C, bias_C, eps):
    layernorm.forward(out_NC, mean_N, rstd_N, x_NC, weight_C, bias_C, eps)


@wrong("layernorm_backward", "the term with the mean of dxhat is missing")
def mean_dxhat_missing(
    dx_NC, dweight_C, dbias_C, dout_NC, x_NC, weight_C, mean_N, rstd_N, accumulate
):
    layernorm.backward(
        dx_NC, dweight_C, dbias_C, dout_NC, x_NC, weight_C, mean_N, rstd_N, accumulate
    )
    if dx_NC is not None:
        dx_NC += rstd_N[:, None] * (dout_NC * weight_C).mean(axis=-1, keepdims=True)


@wrong("layernorm_backward", "the term with xhat is missing")
def xhat_term_missing(
    dx_NC, dweight_C, dbias_C, dout_NC, x_NC, weight_C, mean_N, rstd_N, accumulate
):
    layernorm.backward(
        None, dweight_C, dbias_C, dout_NC, x_NC, weight_C, mean_N, rstd_N, accumulate
    )
    dxhat_NC = dout_NC * weight_C
    put(dx_NC, rstd_N[:, None] * (dxhat_NC - dxhat_NC.mean(axis=-1, keepdims=True)))


@wrong("layernorm_backward", "accumulate is ignored: always overwritten", subtle=True)
def accumulate_ignored(
    dx_NC, dweight_C, dbias_C, dout_NC, x_NC, weight_C, mean_N, rstd_N, accumulate
):
    layernorm.backward(dx_NC, dweight_C, dbias_C, dout_NC, x_NC, weight_C, mean_N, rstd_N, False)


@wrong("layernorm_backward", "always added to: relies on cleared gradients", subtle=True)
def always_accumulates(
    dx_NC, dweight_C, dbias_C, dout_NC, x_NC, weight_C, mean_N, rstd_N, accumulate
):
    layernorm.backward(dx_NC, dweight_C, dbias_C, dout_NC, x_NC, weight_C, mean_N, rstd_N, True)


@wrong("layernorm_backward", "dbias added to, dweight always overwritten", subtle=True)
def dweight_overwritten(
    dx_NC, dweight_C, dbias_C, dout_NC, x_NC, weight_C, mean_N, rstd_N, accumulate
):
    layernorm.backward(dx_NC, None, dbias_C, dout_NC, x_NC, weight_C, mean_N, rstd_N, accumulate)
    layernorm.backward(None, dweight_C, None, dout_NC, x_NC, weight_C, mean_N, rstd_N, False)


@wrong("layernorm_backward", "dweight from x in place of xhat")
def dweight_from_x(dx_NC, dweight_C, dbias_C, dout_NC, x_NC, weight_C, mean_N, rstd_N, accumulate):
    layernorm.backward(dx_NC, None, dbias_C, dout_NC, x_NC, weight_C, mean_N, rstd_N, accumulate)
    put(dweight_C, (dout_NC * x_NC).sum(axis=0), accumulate)


@wrong("layernorm_backward", "weight forgotten in dxhat")
def weight_forgotten(
    dx_NC, dweight_C, dbias_C, dout_NC, x_NC, weight_C, mean_N, rstd_N, accumulate
):
    ones = np.ones_like(weight_C)
    layernorm.backward(dx_NC, dweight_C, dbias_C, dout_NC, x_NC, ones, mean_N, rstd_N, accumulate)


@wrong("layernorm_backward", "rstd made again from x, without eps", subtle=True)
def rstd_without_eps(
    dx_NC, dweight_C, dbias_C, dout_NC, x_NC, weight_C, mean_N, rstd_N, accumulate
):
    with np.errstate(all="ignore"):
        rstd = 1 / x_NC.std(axis=-1)
    layernorm.backward(dx_NC, dweight_C, dbias_C, dout_NC, x_NC, weight_C, mean_N, rstd, accumulate)


@wrong(
    "layernorm_backward", "channels beyond the last whole vector of 4 have no dbias", subtle=True
)
def dbias_tail_dropped(
    dx_NC, dweight_C, dbias_C, dout_NC, x_NC, weight_C, mean_N, rstd_N, accumulate
):
    layernorm.backward(dx_NC, dweight_C, None, dout_NC, x_NC, weight_C, mean_N, rstd_N, accumulate)
    if dbias_C is not None:
        whole = len(dbias_C) // 4 * 4
        put(dbias_C[:whole], dout_NC[:, :whole].sum(axis=0), accumulate)


@wrong("layernorm_backward", "dx is taken to be always there", subtle=True)
def dx_always_there(dx_NC, dweight_C, dbias_C, dout_NC, x_NC, weight_C, mean_N, rstd_N, accumulate):
    dx_NC[...] = 0
    layernorm.backward(
        dx_NC, dweight_C, dbias_C, dout_NC, x_NC, weight_C, mean_N, rstd_N, accumulate
    )


@wrong("layernorm_backward", "xhat rounded to bfloat16 to save traffic, and not declared")
def undeclared_bf16(dx_NC, dweight_C, dbias_C, dout_NC, x_NC, weight_C, mean_N, rstd_N, accumulate):
    x = as_bf16(x_NC)
    layernorm.backward(dx_NC, dweight_C, dbias_C, dout_NC, x, weight_C, mean_N, rstd_N, accumulate)
