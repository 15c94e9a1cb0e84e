"""out = round(x)

A flat run of numbers for each thread: to bfloat16 by rounding to nearest even, from it by a shift of
bits (`_narrow.py`); between equal dtypes a copy.
"""

from numba import prange

from backends.numba_cpu._kernel import kernel
from backends.numba_cpu._runs import copy_run
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
        copy_run(out_P[start:stop], x_P[start:stop])
