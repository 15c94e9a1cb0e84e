"""Residual and LayerNorm in one pass: the sum that flows on, and its normalised rows.

    sum = a + b        out, mean, rstd = layernorm(sum)
    da = db = dsum + (what layernorm_backward gives for sum)

Fused: the row is normalised while it is still in the cache, and the two gradients of the sum are added
as they are made. a and b share one gradient, da.
Source: layernorm.py and residual.py; llm.c, fused_residual_forward5.
"""

import numpy as np

from harness.contract import Acc, In, Magnitude, Out, Param, Stat, hookspec
from harness.ops import layernorm

SHAPES = ({"N": 256, "C": 768}, {"N": 1024, "C": 768})
PARTS = ("residual", "layernorm")
SHARED_GRADIENT = {"b_NC": "da_NC"}
MAY_ALIAS = {"residual_layernorm_forward": (("sum_NC", "a_NC"), ("sum_NC", "b_NC"))}


@hookspec
def residual_layernorm_forward(
    sum_NC: Out,
    out_NC: Out,
    mean_N: Stat,
    rstd_N: Stat,
    a_NC: In,
    b_NC: In,
    weight_C: Param,
    bias_C: Param,
    eps: float,
) -> None:
    """Fill sum_NC with a_NC + b_NC, out_NC with its LayerNorm, and save mean_N and rstd_N.

    sum_NC may share the memory of a_NC or b_NC.
    """


@hookspec
def residual_layernorm_backward(
    da_NC: Out | None,
    dweight_C: Acc | None,
    dbias_C: Acc | None,
    dsum_NC: In | None,
    dout_NC: In,
    sum_NC: In,
    weight_C: Param,
    mean_N: Stat,
    rstd_N: Stat,
    accumulate: bool,
) -> None:
    """Fill da_NC, the gradient of both a and b; overwrite or add to dweight_C and dbias_C.

    dsum_NC: the gradient that reaches the sum from elsewhere; None where nothing else reads it.
    """


def decompose(p, a_NC, b_NC, weight_C, bias_C, eps):
    sum_NC = p.residual(a_NC, b_NC)
    return sum_NC, p.layernorm(sum_NC, weight_C, bias_C, eps)


def example_settings(dims):
    return {"eps": 1e-5}


def reference_forward(a_NC, b_NC, weight_C, bias_C, eps):
    sum_NC = a_NC + b_NC
    return sum_NC, *layernorm.reference_forward(sum_NC, weight_C, bias_C, eps)


def reference_backward(dsum_NC, dout_NC, sum_NC, weight_C, mean_N, rstd_N):
    dx_NC, dweight_C, dbias_C = layernorm.reference_backward(
        dout_NC, sum_NC, weight_C, mean_N, rstd_N
    )
    return dx_NC if dsum_NC is None else dx_NC + dsum_NC, dweight_C, dbias_C


def magnitude_forward(a_NC, b_NC, weight_C, bias_C, eps):
    sum_NC = a_NC + b_NC
    S_sum = np.abs(a_NC) + np.abs(b_NC)
    out, mean, rstd = layernorm.magnitude_forward(sum_NC, weight_C, bias_C, eps)
    # The sum is rounded before it is normalised.
    rstd_N1 = layernorm.reference_forward(sum_NC, weight_C, bias_C, eps)[2][:, None]
    size_N1 = S_sum.mean(axis=-1, keepdims=True)
    S_out = out.S + (S_sum + size_N1) * rstd_N1 * np.abs(weight_C)
    S_rstd = rstd.S * (1 + size_N1[:, 0] * rstd_N1[:, 0])
    return (
        Magnitude(S_sum, 1),
        Magnitude(S_out, out.n),
        Magnitude(mean.S + size_N1[:, 0], mean.n),
        Magnitude(S_rstd, rstd.n),
    )


def magnitude_backward(dsum_NC, dout_NC, sum_NC, weight_C, mean_N, rstd_N):
    dx, dweight, dbias = layernorm.magnitude_backward(dout_NC, sum_NC, weight_C, mean_N, rstd_N)
    S = dx.S if dsum_NC is None else dx.S + np.abs(dsum_NC)
    return Magnitude(S, dx.n), dweight, dbias


def flops_forward(N, C):
    return 9 * N * C


def flops_backward(N, C):
    return 15 * N * C
