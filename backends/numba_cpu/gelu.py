"""u = sqrt(2/pi) (x + 0.044715 x³)        out = x (1 + tanh u) / 2

    dx = dout · ((1 + tanh u) / 2 + x (1 - tanh² u) u' / 2)        u' = sqrt(2/pi) (1 + 3 · 0.044715 x²)

One pass over a flat run of numbers for each thread. (1 + tanh u) / 2 is the logistic function of 2u,
which takes one exp (`_gelu.py`).
"""

from numba import prange

from backends.numba_cpu._gelu import gelu, gelu_slope
from backends.numba_cpu._kernel import helper, kernel
from backends.numba_cpu._narrow import narrow, wide
from backends.numba_cpu._threads import threads
from backends.numba_cpu._tiles import coarse_part
from harness import hookimpl


@hookimpl
def gelu_forward(out_NF, x_NF):
    _forward(out_NF.reshape(-1), x_NF.reshape(-1), threads())


@hookimpl
def gelu_backward(dx_NF, dout_NF, x_NF):
    _backward(dx_NF.reshape(-1), dout_NF.reshape(-1), x_NF.reshape(-1), threads())


@kernel
def _forward(out_P, x_P, tasks):
    for task in prange(tasks):
        start, stop = coarse_part(x_P.size, tasks, task)
        _gelu_run(out_P[start:stop], x_P[start:stop])


@kernel
def _backward(dx_P, dout_P, x_P, tasks):
    for task in prange(tasks):
        start, stop = coarse_part(x_P.size, tasks, task)
        _gradient_run(dx_P[start:stop], dout_P[start:stop], x_P[start:stop])


@helper
def _gelu_run(out_P, x_P):
    for p in range(x_P.size):
        out_P[p] = narrow(out_P, gelu(wide(x_P[p])))


@helper
def _gradient_run(dx_P, dout_P, x_P):
    for p in range(x_P.size):
        dx_P[p] = narrow(dx_P, wide(dout_P[p]) * gelu_slope(wide(x_P[p])))
