"""out = x/2 · (1 + tanh u)        u = sqrt(2/π) · (x + 0.044715 x³)

    dx = dout · (1/2 · (1 + tanh u) + x/2 · (1 - tanh² u) · du/dx)

A thread for each element. Threads go on at a stride of the whole grid, so that neighbours in a warp read
neighbours in memory at every step.
"""

import numpy as np
from numba import cuda

from backends.numba_cuda._launch import THREADS, blocks_for, launch
from backends.numba_cuda._math import tanh
from backends.numba_cuda._narrow import narrow, wide
from harness import hookimpl

C = np.float32(0.7978845608028654)  # sqrt(2/π): the tanh form, as GPT-2 was trained
CUBIC = np.float32(0.044715)
HALF, ONE, THREE = np.float32(0.5), np.float32(1), np.float32(3)


@hookimpl
def gelu_forward(out_NF, x_NF):
    count = out_NF.size
    launch(_forward, blocks_for(count), THREADS, out_NF.reshape(count), x_NF.reshape(count))


@hookimpl
def gelu_backward(dx_NF, dout_NF, x_NF):
    flat = (array.reshape(dx_NF.size) for array in (dx_NF, dout_NF, x_NF))
    launch(_backward, blocks_for(dx_NF.size), THREADS, *flat)


@cuda.jit
def _forward(out_N, x_N):
    for i in range(cuda.grid(1), out_N.size, cuda.gridsize(1)):
        x = wide(x_N[i])
        out_N[i] = narrow(out_N, HALF * x * (ONE + _tanh_u(x)))


@cuda.jit
def _backward(dx_N, dout_N, x_N):
    for i in range(cuda.grid(1), dx_N.size, cuda.gridsize(1)):
        x = wide(x_N[i])
        t = _tanh_u(x)
        du = C * (ONE + THREE * CUBIC * x * x)
        slope = HALF * (ONE + t) + HALF * x * (ONE - t * t) * du
        dx_N[i] = narrow(dx_N, wide(dout_N[i]) * slope)


@cuda.jit(device=True)
def _tanh_u(x):
    return tanh(C * (x + CUBIC * x * x * x))
