"""Guard: remember on the device that something was not finite.

    scale = NaN where an x is NaN or infinite, and otherwise what it was

`scale` is what the optimizer multiplies the gradient by, and a NaN there makes no update (adamw, sgd):
a step whose loss is not finite changes nothing, and the host need not have seen the loss first.
"""

import numpy as np

from harness.contract import Const, Magnitude, State, hookspec

SHAPES = ({"P": 1 << 10}, {"P": 1 << 16})

MAX_FINITE = float(np.finfo(np.float32).max)


@hookspec
def guard(scale_1: State, x_P: Const) -> None:
    """Make scale_1 (float32) NaN where x_P holds a NaN or an infinity; leave its bits otherwise.

    A finite x is finite however large it is: squares and sums of it may not be.
    """


def example_inputs(rng, dims, settings):
    scale = {"scale_1": rng.choice([1.0, 0.37, np.nan], size=1, p=[0.6, 0.3, 0.1])}
    kind = rng.choice(["plain", "largest", "poisoned"], p=[0.25, 0.25, 0.5])
    if kind == "plain":
        return scale
    x_P = rng.normal(size=dims["P"])
    if kind == "largest":
        x_P = np.copysign(MAX_FINITE, x_P)
    else:
        # One of them alone, anywhere: a tile's last, and what comes after the last whole tile.
        x_P[rng.choice([0, dims["P"] - 1, rng.integers(dims["P"])])] = rng.choice(
            [np.nan, np.inf, -np.inf]
        )
    return {**scale, "x_P": x_P}


def reference_forward(scale_1, x_P):
    return (scale_1 if np.isfinite(x_P).all() else np.full(1, np.nan),)


def magnitude_forward(scale_1, x_P):
    # Nothing is computed: what stays, stays to the bit.
    return (Magnitude(np.zeros(1), 1),)


def flops_forward(P):
    return 0
