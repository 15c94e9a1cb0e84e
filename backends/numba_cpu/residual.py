"""out = a + b        da = dout        db = dout

One pass, which memory bounds: a thread adds a flat run of numbers.
"""

from numba import prange

from backends.numba_cpu._kernel import helper, kernel
from backends.numba_cpu._narrow import narrow, wide
from backends.numba_cpu._threads import threads
from backends.numba_cpu._tiles import coarse_part
from backends.numba_cpu.cast import convert
from harness import hookimpl


@hookimpl
def residual_forward(out_NC, a_NC, b_NC):
    _add(out_NC.reshape(-1), a_NC.reshape(-1), b_NC.reshape(-1), threads())


@hookimpl
def residual_backward(da_NC, db_NC, dout_NC):
    for gradient_NC in (da_NC, db_NC):
        if gradient_NC is not None:
            convert(gradient_NC.reshape(-1), dout_NC.reshape(-1), threads())


@kernel
def _add(out_P, a_P, b_P, tasks):
    for task in prange(tasks):
        start, stop = coarse_part(out_P.size, tasks, task)
        _add_run(out_P[start:stop], a_P[start:stop], b_P[start:stop])


@helper
def _add_run(out_P, a_P, b_P):
    for p in range(out_P.size):
        out_P[p] = narrow(out_P, wide(a_P[p]) + wide(b_P[p]))
