"""out = x/2 · (1 + tanh u)        u = sqrt(2/π) · (x + 0.044715 x³)

    dx = dout · (1/2 · (1 + tanh u) + x/2 · (1 - tanh² u) · du/dx)

A block of 256 threads takes 1,024 elements, a thread four of them (`_fours.py`), and then goes on to
those that lie a whole grid further.
"""

import numpy as np
from numba import cuda

from backends.numba_cuda._fours import FOUR, first_element, four, launch_fours, put, stride
from backends.numba_cuda._math import tanh
from harness import hookimpl

C = np.float32(0.7978845608028654)  # sqrt(2/π): the tanh form, as GPT-2 was trained
CUBIC = np.float32(0.044715)
HALF, ONE, THREE = np.float32(0.5), np.float32(1), np.float32(3)


@hookimpl
def gelu_forward(out_NF, x_NF):
    flat = (array.reshape(out_NF.size) for array in (out_NF, x_NF))
    launch_fours(_forward, out_NF.size, *flat)


@hookimpl
def gelu_backward(dx_NF, dout_NF, x_NF):
    flat = (array.reshape(dx_NF.size) for array in (dx_NF, dout_NF, x_NF))
    launch_fours(_backward, dx_NF.size, *flat)


@cuda.jit
def _forward(out_N, x_N):
    for i in range(first_element(), out_N.size, stride()):
        x = four(x_N, i)
        for k in range(FOUR):
            put(out_N, i, k, gelu(x[k]))


@cuda.jit
def _backward(dx_N, dout_N, x_N):
    for i in range(first_element(), dx_N.size, stride()):
        x, dout = four(x_N, i), four(dout_N, i)
        for k in range(FOUR):
            put(dx_N, i, k, dout[k] * gelu_slope(x[k]))


@cuda.jit(device=True)
def gelu(x):
    """Of one number."""
    return HALF * x * (ONE + _tanh_u(x))


@cuda.jit(device=True)
def gelu_slope(x):
    """d gelu / dx."""
    t = _tanh_u(x)
    du = C * (ONE + THREE * CUBIC * x * x)
    return HALF * (ONE + t) + HALF * x * (ONE - t * t) * du


@cuda.jit(device=True)
def _tanh_u(x):
    return tanh(C * (x + CUBIC * x * x * x))
