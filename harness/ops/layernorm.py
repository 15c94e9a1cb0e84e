"""LayerNorm: each row to zero mean and unit variance, then scaled and shifted by channel.

    mean = sum_c x[c] / C          rstd = 1 / sqrt(sum_c (x[c] - mean)^2 / C + eps)
    xhat = (x - mean) * rstd       out = xhat * weight + bias

    dxhat   = dout * weight
    dx      = rstd * (dxhat - mean_c(dxhat) - xhat * mean_c(dxhat * xhat))
    dweight = sum_n dout * xhat    dbias = sum_n dout

The variance is taken about the mean: E[x^2] - E[x]^2 cancels where |mean| is much larger than the
standard deviation, and conformance refuses it.
Source: Ba, Kiros, Hinton 2016, arXiv:1607.06450; llm.c, doc/layernorm.
"""

import numpy as np

from harness.contract import Acc, In, Magnitude, Out, Param, Stat, hookspec

SHAPES = ({"N": 256, "C": 768}, {"N": 1024, "C": 768})


@hookspec
def layernorm_forward(
    out_NC: Out,
    mean_N: Stat,
    rstd_N: Stat,
    x_NC: In,
    weight_C: Param,
    bias_C: Param,
    eps: float,
) -> None:
    """Fill out_NC, and save mean_N and rstd_N (float32) for the backward.

    eps: added to the variance before the square root; GPT-2 uses 1e-5.
    """


@hookspec
def layernorm_backward(
    dx_NC: Out | None,
    dweight_C: Acc | None,
    dbias_C: Acc | None,
    dout_NC: In,
    x_NC: In,
    weight_C: Param,
    mean_N: Stat,
    rstd_N: Stat,
    accumulate: bool,
) -> None:
    """Fill dx_NC; overwrite dweight_C and dbias_C, or add to them if `accumulate`.

    mean_N and rstd_N are what a forward saved, on any backend. Each gradient may be None.
    """


def example_settings(dims):
    return {"eps": 1e-5}


def reference_forward(x_NC, weight_C, bias_C, eps):
    mean_N = x_NC.mean(axis=-1)
    centred_NC = x_NC - mean_N[:, None]
    rstd_N = 1 / np.sqrt((centred_NC**2).mean(axis=-1) + eps)
    return centred_NC * rstd_N[:, None] * weight_C + bias_C, mean_N, rstd_N


def reference_backward(dout_NC, x_NC, weight_C, mean_N, rstd_N):
    xhat_NC = (x_NC - mean_N[:, None]) * rstd_N[:, None]
    dxhat_NC = dout_NC * weight_C
    mean_dxhat_N1 = dxhat_NC.mean(axis=-1, keepdims=True)
    mean_dxhat_xhat_N1 = (dxhat_NC * xhat_NC).mean(axis=-1, keepdims=True)
    dx_NC = rstd_N[:, None] * (dxhat_NC - mean_dxhat_N1 - xhat_NC * mean_dxhat_xhat_N1)
    return dx_NC, (dout_NC * xhat_NC).sum(axis=0), dout_NC.sum(axis=0)


def magnitude_forward(x_NC, weight_C, bias_C, eps):
    _, mean_N, rstd_N = reference_forward(x_NC, weight_C, bias_C, eps)
    C = x_NC.shape[-1]
    mean_abs_N = np.abs(x_NC).mean(axis=-1)
    spread_NC = np.abs(x_NC) + np.abs(mean_N)[:, None] + mean_abs_N[:, None]
    S_out = spread_NC * rstd_N[:, None] * np.abs(weight_C) + np.abs(bias_C)
    # Without the second term an honest Welford update is refused once in 40 seeds.
    S_rstd = rstd_N * (1 + mean_abs_N * rstd_N)
    return Magnitude(S_out, C), Magnitude(mean_abs_N, C), Magnitude(S_rstd, C)


def magnitude_backward(dout_NC, x_NC, weight_C, mean_N, rstd_N):
    N, C = x_NC.shape
    xhat_NC = (np.abs(x_NC) + np.abs(mean_N)[:, None]) * rstd_N[:, None]
    dxhat_NC = np.abs(dout_NC * weight_C)
    mean_dxhat_N1 = dxhat_NC.mean(axis=-1, keepdims=True)
    mean_dxhat_xhat_N1 = (dxhat_NC * xhat_NC).mean(axis=-1, keepdims=True)
    S_dx = rstd_N[:, None] * (dxhat_NC + mean_dxhat_N1 + xhat_NC * mean_dxhat_xhat_N1)
    S_dweight = (np.abs(dout_NC) * xhat_NC).sum(axis=0)
    S_dbias = np.abs(dout_NC).sum(axis=0)
    return Magnitude(S_dx, C), Magnitude(S_dweight, N), Magnitude(S_dbias, N)


def flops_forward(N, C):
    return 8 * N * C


def flops_backward(N, C):
    return 14 * N * C
