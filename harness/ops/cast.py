"""Cast: the same numbers in another dtype, rounded to nearest even.

    out = round(x)

A plan inserts it where producer and consumer have different precisions, and after the optimizer, to
refresh low-precision weights from their float32 masters. It is never differentiated by name: the
gradient of a cast is a cast back.
Source: IEEE 754-2019, 4.3.1.
"""

import numpy as np

from harness.contract import Const, Magnitude, Out, hookspec

SHAPES = ({"P": 1 << 20},)


@hookspec
def cast(out_P: Out, x_P: Const) -> None:
    """Overwrite out_P with x_P, rounded to nearest even where out_P's dtype is narrower."""


def reference_forward(x_P):
    return (x_P,)


def magnitude_forward(x_P):
    # One rounding, to the output's dtype: nothing is accumulated.
    return (Magnitude(np.zeros_like(x_P), 1),)


def flops_forward(P):
    return 0
