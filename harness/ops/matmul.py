"""Matmul: a linear layer, out = x · weightᵀ + bias, with the weight stored (out, in) as in llm.c.

    dx = dout · weight        dweight = doutᵀ · x        dbias = sum_n dout

Source: llm.c, matmul_forward and matmul_backward.
"""

import numpy as np

from harness.contract import Acc, In, Magnitude, Out, Param, hookspec

# The five of GPT-2 124M at B=4, T=64: qkv, attention projection, fc, fc projection, head.
SHAPES = (
    {"N": 256, "I": 768, "O": 2304},
    {"N": 256, "I": 768, "O": 768},
    {"N": 256, "I": 768, "O": 3072},
    {"N": 256, "I": 3072, "O": 768},
    {"N": 256, "I": 768, "O": 50304},
)


@hookspec
def matmul_forward(out_NO: Out, x_NI: In, weight_OI: Param, bias_O: Param | None) -> None:
    """Fill out_NO with x_NI · weight_OIᵀ + bias_O; without a bias where bias_O is None."""


@hookspec
def matmul_backward(
    dx_NI: Out | None,
    dweight_OI: Acc | None,
    dbias_O: Acc | None,
    dout_NO: In,
    x_NI: In,
    weight_OI: Param,
    accumulate: bool,
) -> None:
    """Fill dx_NI; overwrite dweight_OI and dbias_O, or add to them if `accumulate`.

    Each of the three may be None: then it is not computed.
    """


def reference_forward(x_NI, weight_OI, bias_O):
    out_NO = x_NI @ weight_OI.T
    return (out_NO if bias_O is None else out_NO + bias_O,)


def reference_backward(dout_NO, x_NI, weight_OI):
    return dout_NO @ weight_OI, dout_NO.T @ x_NI, dout_NO.sum(axis=0)


def magnitude_forward(x_NI, weight_OI, bias_O):
    bias_O = None if bias_O is None else np.abs(bias_O)
    (S,) = reference_forward(np.abs(x_NI), np.abs(weight_OI), bias_O)
    return (Magnitude(S, x_NI.shape[-1]),)


def magnitude_backward(dout_NO, x_NI, weight_OI):
    N, O = dout_NO.shape
    S = reference_backward(np.abs(dout_NO), np.abs(x_NI), np.abs(weight_OI))
    return tuple(Magnitude(s, n) for s, n in zip(S, (O, N, N), strict=True))


def flops_forward(N, I, O):
    return 2 * N * I * O


def flops_backward(N, I, O):
    return 4 * N * I * O
