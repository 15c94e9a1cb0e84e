"""scale = NaN where an x is NaN or infinite, and otherwise what it was

A block takes 1,024 elements at a time, a thread four of them (`_fours.py`), and looks at all of its own.
Each thread that has found one writes the same NaN, so no order matters.
"""

import numpy as np
from numba import cuda

from backends.numba_cuda._fours import FOUR, first_element, four, launch_fours, stride
from harness import hookimpl

MAX_FINITE = np.finfo(np.float32).max
NAN = np.float32(np.nan)


@hookimpl
def guard(scale_1, x_P):
    launch_fours(_guard, x_P.size, scale_1, x_P)


@cuda.jit
def _guard(scale_1, x_P):
    finite = True
    for p in range(first_element(), x_P.size, stride()):
        x = four(x_P, p)
        for k in range(FOUR):
            finite = finite and is_finite(x[k])
    if not finite:
        scale_1[0] = NAN


@cuda.jit(device=True)
def is_finite(x):
    """Neither NaN, which is in no relation to any number, nor infinite."""
    return abs(x) <= MAX_FINITE
