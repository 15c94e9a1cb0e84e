"""Matmul and GELU in one call: the first half of GPT-2's feed-forward layer.

    pre = x · weightᵀ + bias        out = gelu(pre)
    dpre = dout * gelu'(pre)        dx, dweight, dbias = matmul_backward(dpre)

Fused: the bias is added and GELU taken while the tile is warm. `pre` is kept for the backward.
Source: matmul.py and gelu.py.
"""

from harness.contract import Acc, In, Kept, Magnitude, Out, Param, hookspec
from harness.ops import gelu, matmul

SHAPES = ({"N": 256, "I": 768, "O": 3072},)
PARTS = ("matmul", "gelu")
AGAIN = {"out_NO": ("gelu", ("pre_NO",))}


@hookspec
def matmul_gelu_forward(
    out_NO: Out, pre_NO: Kept, x_NI: In, weight_OI: Param, bias_O: Param | None
) -> None:
    """Fill pre_NO with x_NI · weight_OIᵀ + bias_O, and out_NO with its GELU."""


@hookspec
def matmul_gelu_backward(
    dx_NI: Out | None,
    dweight_OI: Acc | None,
    dbias_O: Acc | None,
    dout_NO: In,
    pre_NO: In,
    x_NI: In,
    weight_OI: Param,
    accumulate: bool,
) -> None:
    """Fill dx_NI; overwrite dweight_OI and dbias_O, or add to them if `accumulate`.

    pre_NO is what a forward kept, on any backend. Each gradient may be None.
    """


def decompose(p, x_NI, weight_OI, bias_O):
    return p.gelu(p.matmul(x_NI, weight_OI, bias_O))


def reference_forward(x_NI, weight_OI, bias_O):
    (pre_NO,) = matmul.reference_forward(x_NI, weight_OI, bias_O)
    return *gelu.reference_forward(pre_NO), pre_NO


def reference_backward(dout_NO, pre_NO, x_NI, weight_OI):
    (dpre_NO,) = gelu.reference_backward(dout_NO, pre_NO)
    return matmul.reference_backward(dpre_NO, x_NI, weight_OI)


def magnitude_forward(x_NI, weight_OI, bias_O):
    (pre_NO,) = matmul.reference_forward(x_NI, weight_OI, bias_O)
    (pre,) = matmul.magnitude_forward(x_NI, weight_OI, bias_O)
    (out,) = gelu.magnitude_forward(pre_NO)
    # GELU's slope is at most 1.13: the rounding of pre passes through it.
    return Magnitude(out.S + 1.13 * pre.S, pre.n), pre


def magnitude_backward(dout_NO, pre_NO, x_NI, weight_OI):
    (dpre,) = gelu.magnitude_backward(dout_NO, pre_NO)
    return matmul.magnitude_backward(dpre.S, x_NI, weight_OI)


def flops_forward(N, I, O):
    return matmul.flops_forward(N, I, O) + gelu.flops_forward(N, O)


def flops_backward(N, I, O):
    return matmul.flops_backward(N, I, O) + gelu.flops_backward(N, O)


def bytes_forward(N, I, O):
    return 4 * (N * I + O * I + O + 2 * N * O)


def bytes_backward(N, I, O):
    return 4 * (2 * N * I + 2 * O * I + O + 2 * N * O)
