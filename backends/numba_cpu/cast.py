"""out = round(x)

A flat run of numbers for each thread: to bfloat16 by rounding to nearest even, from it by a shift of
bits (`_narrow.py`); between equal dtypes a copy.
"""

from numba import prange

from backends.numba_cpu._kernel import helper, kernel
from backends.numba_cpu._narrow import narrow, wide
from backends.numba_cpu._threads import threads
from backends.numba_cpu._tiles import coarse_part
from harness import hookimpl


@hookimpl
def cast(out_P, x_P):
    convert(out_P, x_P, threads())


@kernel
def convert(out_P, x_P, tasks):
    """out = x, from and to either dtype."""
    for task in prange(tasks):
        start, stop = coarse_part(x_P.size, tasks, task)
        _convert_run(out_P[start:stop], x_P[start:stop])


@helper
def _convert_run(out_P, x_P):
    for p in range(x_P.size):
        out_P[p] = narrow(out_P, wide(x_P[p]))
