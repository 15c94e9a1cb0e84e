"""scale = NaN where an x is NaN or infinite, and otherwise what it was

Each thread counts, in whole numbers, what of its part is not finite: the order does not matter.
"""

import math

import numpy as np
from numba import prange

from backends.numba_cpu._kernel import kernel
from backends.numba_cpu._narrow import wide
from backends.numba_cpu._threads import threads
from backends.numba_cpu._tiles import coarse_part
from harness import hookimpl


@hookimpl
def guard(scale_1, x_P):
    if _not_finite(x_P, threads()):
        scale_1[0] = math.nan


@kernel
def _not_finite(x_P, tasks):
    count = 0
    for task in prange(tasks):
        start, stop = coarse_part(x_P.size, tasks, task)
        x_R = x_P[start:stop]
        for r in range(x_R.size):
            if not np.isfinite(wide(x_R[r])):
                count += 1
    return count
