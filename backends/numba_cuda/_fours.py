"""Four elements of a thread at a time, all read before the first is written.

    launch_fours(_forward, out_N.size, out_N, x_N)                 on the host

    for i in range(first_element(), out_N.size, stride()):         in the kernel
        x = four(x_N, i)
        for k in range(FOUR):
            put(out_N, i, k, gelu(x[k]))

The four lie a block apart, so that neighbours in a warp still read neighbours in memory. With one read
at a time a thread would ask memory for two or four bytes and wait, and memory would be idle for want of
questions. A block goes over TILE elements, then over those a whole grid further on.
"""

import numpy as np
from numba import cuda

from backends.numba_cuda._launch import THREADS, blocks_for, launch
from backends.numba_cuda._narrow import narrow, wide

FOUR = 4
TILE = FOUR * THREADS
ZERO = np.float32(0)

# An index of int64 may be negative, and a kernel then looks; one of uint64 may not. Four elements with
# one address between them take half the instructions.
NEXT, SECOND, THIRD = np.uint64(THREADS), np.uint64(2 * THREADS), np.uint64(3 * THREADS)


def launch_fours(kernel, count, *arguments):
    """Run a kernel of this kind over so many elements."""
    launch(kernel, blocks_for(-(-count // FOUR)), THREADS, *arguments)


@cuda.jit(device=True)
def first_element():
    """Of this thread: the first of its first four."""
    return cuda.blockIdx.x * TILE + cuda.threadIdx.x


@cuda.jit(device=True)
def stride():
    """From a thread's four to its next four."""
    return cuda.gridDim.x * TILE


@cuda.jit(device=True)
def four(x_N, i):
    """x[i], and those one, two and three blocks further on, in float32; 0 beyond the end."""
    left = x_N.size - i
    at = np.uint64(i)
    return (
        wide(x_N[at]) if left > 0 else ZERO,
        wide(x_N[at + NEXT]) if left > THREADS else ZERO,
        wide(x_N[at + SECOND]) if left > 2 * THREADS else ZERO,
        wide(x_N[at + THIRD]) if left > 3 * THREADS else ZERO,
    )


@cuda.jit(device=True)
def put(out_N, i, k, value):
    """Write the k-th of the four at i, as the buffer holds numbers; beyond the end, nothing."""
    if out_N.size - i > k * THREADS:
        out_N[np.uint64(i) + np.uint64(k * THREADS)] = narrow(out_N, value)
