"""Residual: the sum of two tensors. It also sums the gradients that reach a tensor by two ways.

    out = a + b        da = dout        db = dout

A plan makes no backward call: both gradients *are* dout.
Source: He et al. 2015, arXiv:1512.03385.
"""

import numpy as np

from harness.contract import In, Magnitude, Out, hookspec

SHAPES = ({"N": 256, "C": 768}, {"N": 1024, "C": 768})
PASSES_GRADIENT = ("a_NC", "b_NC")
MAY_ALIAS = {"residual_forward": (("out_NC", "a_NC"), ("out_NC", "b_NC"))}


@hookspec
def residual_forward(out_NC: Out, a_NC: In, b_NC: In) -> None:
    """Fill out_NC with a_NC + b_NC. out_NC may share the memory of either."""


@hookspec
def residual_backward(da_NC: Out | None, db_NC: Out | None, dout_NC: In) -> None:
    """Copy dout_NC into da_NC and db_NC; either may be None."""


def reference_forward(a_NC, b_NC):
    return (a_NC + b_NC,)


def reference_backward(dout_NC):
    return dout_NC, dout_NC


def magnitude_forward(a_NC, b_NC):
    return (Magnitude(np.abs(a_NC) + np.abs(b_NC), 1),)


def magnitude_backward(dout_NC):
    # A copy rounds nothing.
    return Magnitude(np.zeros_like(dout_NC), 1), Magnitude(np.zeros_like(dout_NC), 1)


def flops_forward(N, C):
    return N * C


def flops_backward(N, C):
    return 0
