"""Rows in pieces of AT_ONCE numbers for each thread of a block: all are read before the first is used.

    x_K = cuda.local.array(AT_ONCE, np.float32)          in the kernel; it becomes registers
    for first in range(cuda.threadIdx.x, C, piece()):
        read(x_K, x_C, first, C, ZERO)
        for k in range(AT_ONCE): x_K[k] *= TWO
        write(out_C, x_K, first, C)

A thread's numbers lie a block apart, so that neighbours in a warp read neighbours in memory. One read
at a time would leave memory idle. A row is up to four pieces: were it shared by more threads, with fewer
numbers for each, the trees that join what the threads have would take most of a kernel's time. At 768
columns that is one warp, and three whole pieces.
"""

import numpy as np
from numba import cuda

from backends.numba_cuda._launch import THREADS, threads_for
from backends.numba_cuda._narrow import narrow, wide

AT_ONCE = 8
PIECES = 4
LAST = AT_ONCE - 1
ZERO = np.float32(0)


def threads_for_row(count):
    """Threads of a block that goes over a row of so many numbers."""
    return threads_for(-(-count // (PIECES * AT_ONCE)), THREADS)


@cuda.jit(device=True)
def piece():
    """Numbers in a piece of all threads."""
    return AT_ONCE * cuda.blockDim.x


@cuda.jit(device=True)
def read(x_K, x_C, first, stop, beyond):
    """This thread's numbers from x_C[first] on, in float32; `beyond` for those from `stop` on."""
    threads = cuda.blockDim.x
    # An index of int64 may be negative, and a kernel then looks; one of uint64 may not.
    if first + LAST * threads < stop:
        for k in range(AT_ONCE):
            x_K[k] = wide(x_C[np.uint64(first + k * threads)])
    else:
        for k in range(AT_ONCE):
            c = first + k * threads
            x_K[k] = wide(x_C[np.uint64(c)]) if c < stop else beyond


@cuda.jit(device=True)
def write(out_C, x_K, first, stop):
    """Write what `read` would read, as the buffer holds numbers."""
    threads = cuda.blockDim.x
    if first + LAST * threads < stop:
        for k in range(AT_ONCE):
            out_C[np.uint64(first + k * threads)] = narrow(out_C, x_K[k])
    else:
        for k in range(AT_ONCE):
            c = first + k * threads
            if c < stop:
                out_C[np.uint64(c)] = narrow(out_C, x_K[k])


@cuda.jit(device=True)
def clear(out_C, start, stop):
    """Write zeros from `start` to `stop`."""
    for c in range(start + cuda.threadIdx.x, stop, cuda.blockDim.x):
        out_C[np.uint64(c)] = narrow(out_C, ZERO)
