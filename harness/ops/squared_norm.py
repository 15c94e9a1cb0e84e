"""Squared norm: the sum of squares of a flat run of numbers, for clipping by global norm.

    sum = sum_p x[p]^2

Source: Pascanu et al. 2013, arXiv:1211.5063 (clipping by the norm of all gradients together).
"""

from harness.contract import Const, Magnitude, Stat, hookspec

SHAPES = ({"P": 1 << 20}, {"P": 124_475_904})


@hookspec
def squared_norm(sum_1: Stat, x_P: Const) -> None:
    """Overwrite sum_1 (float32) with the sum of the squares of x_P."""


def reference_forward(x_P):
    return ((x_P**2).sum(keepdims=True),)


def magnitude_forward(x_P):
    return (Magnitude((x_P**2).sum(keepdims=True), x_P.size),)


def flops_forward(P):
    return 2 * P
