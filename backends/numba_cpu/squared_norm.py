"""sum = Σ_p x[p]²

Each thread sums runs of its part in float32, and the sums of the runs in float64.
"""

import numpy as np
from numba import prange

from backends.numba_cpu._kernel import helper, kernel
from backends.numba_cpu._narrow import wide
from backends.numba_cpu._scratch import room, scratch, takes
from backends.numba_cpu._threads import threads
from backends.numba_cpu._tiles import coarse_part
from harness import hookimpl

RUN = 4096
"""Numbers that are summed in float32: their sum is as exact as the tolerance of one."""


@hookimpl
def squared_norm(sum_1, x_P):
    (parts_K,) = scratch((threads(),), dtype=np.float64)
    _sum_of_squares(parts_K, x_P, threads())
    total = 0.0
    for part in parts_K:
        total += part
    with np.errstate(all="ignore"):
        sum_1[0] = total


@kernel
def _sum_of_squares(parts_K, x_P, tasks):
    for task in prange(tasks):
        start, stop = coarse_part(x_P.size, tasks, task)
        total = 0.0
        for first in range(start, stop, RUN):
            total += np.float64(_sum_of_run(x_P[first : min(first + RUN, stop)]))
        parts_K[task] = total


@helper
def _sum_of_run(x_R):
    total = np.float32(0)
    for r in range(x_R.size):
        x = wide(x_R[r])
        total += x * x
    return total


@takes("squared_norm")
def _scratch(dims, precision, most):
    return room((threads(),), dtype=np.float64)
