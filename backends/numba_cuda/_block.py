"""What the threads of a block find out together, through shared memory.

    partial = cuda.shared.array(MAX_THREADS, np.float32)      in the kernel, on a line of its own
    total = block_sum(mine, partial)                           every thread gets the same bits

A tree: the upper half of the threads hands its numbers to the lower half, until one is left. The block
has a power of two of threads in x, MAX_THREADS at most, and every one of them calls it.
"""

import numpy as np
from numba import cuda

from backends.numba_cuda._exp_near import exp_near

MAX_THREADS = 256
"""Of a block that a tree goes over; what `partial` is long."""

LOWEST = np.finfo(np.float32).min
"""What a maximum begins at. Not -inf: numbers that are all -inf would then give inf - inf."""


@cuda.jit(device=True)
def block_sum(mine, partial):
    """Σ mine over the block's threads, in the order of the tree."""
    thread = cuda.threadIdx.x
    partial[thread] = mine
    cuda.syncthreads()
    half = cuda.blockDim.x // 2
    while half > 0:
        if thread < half:
            mine += partial[thread + half]
            partial[thread] = mine
        cuda.syncthreads()
        half //= 2
    total = partial[0]
    cuda.syncthreads()  # partial may be written again as soon as this returns
    return total


@cuda.jit(device=True)
def block_sums(mine, also_mine, partial, also_partial):
    """Two sums at once, which wait at the same barriers."""
    thread = cuda.threadIdx.x
    partial[thread], also_partial[thread] = mine, also_mine
    cuda.syncthreads()
    half = cuda.blockDim.x // 2
    while half > 0:
        if thread < half:
            mine += partial[thread + half]
            also_mine += also_partial[thread + half]
            partial[thread], also_partial[thread] = mine, also_mine
        cuda.syncthreads()
        half //= 2
    total, also_total = partial[0], also_partial[0]
    cuda.syncthreads()
    return total, also_total


@cuda.jit(device=True)
def block_max(mine, partial):
    """The largest over the block's threads; a NaN of any is the answer."""
    thread = cuda.threadIdx.x
    partial[thread] = mine
    cuda.syncthreads()
    half = cuda.blockDim.x // 2
    while half > 0:
        if thread < half:
            other = partial[thread + half]
            # `not (other <= ...)` and not `other > ...`: a NaN wins.
            if not (other <= partial[thread]) and partial[thread] == partial[thread]:
                partial[thread] = other
        cuda.syncthreads()
        half //= 2
    top = partial[0]
    cuda.syncthreads()
    return top


@cuda.jit(device=True)
def block_log_sum(top, total, tops, totals):
    """(top, total) of all: each thread's total is a sum of exp(x - top), its top the largest x.

    A thread that has seen nothing comes with LOWEST and 0. A NaN is in a total, and stays.
    """
    thread = cuda.threadIdx.x
    tops[thread], totals[thread] = top, total
    cuda.syncthreads()
    half = cuda.blockDim.x // 2
    while half > 0:
        if thread < half:
            other_top, other_total = tops[thread + half], totals[thread + half]
            higher = max(top, other_top)
            total = total * exp_near(top - higher) + other_total * exp_near(other_top - higher)
            top = higher
            tops[thread], totals[thread] = top, total
        cuda.syncthreads()
        half //= 2
    top, total = tops[0], totals[0]
    cuda.syncthreads()
    return top, total
