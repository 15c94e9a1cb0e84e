"""out = x, its lower 16 bits rounded up or down at random

A flat run of numbers for each thread, cut at multiples of four: a block of random words serves four
(`_random.py`).
"""

from numba import prange

from backends.numba_cpu._kernel import kernel
from backends.numba_cpu._random import key_of, random_run
from backends.numba_cpu._threads import threads
from backends.numba_cpu._tiles import coarse_part
from harness import hookimpl


@hookimpl
def stochastic_cast(out_P, x_P, key_2, first):
    _round(out_P, x_P, key_of(key_2), first, threads())


@kernel
def _round(out_P, x_P, key, first, tasks):
    for task in prange(tasks):
        start, stop = coarse_part(x_P.size, tasks, task)
        random_run(out_P[start:stop], x_P[start:stop], key, first + start)
