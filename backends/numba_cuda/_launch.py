"""Say which kernel runs, over which grid, on what.

    launch(_forward, blocks_for(n), THREADS, out_N, x_N, n)

It goes onto the harness's stream and is not waited for. A number of Python becomes int64 or float32 (a
float64 would make the kernel compute in double precision), a bool stays one, and None is left out of the
kernel as it is compiled: `if bias_O is not None` costs nothing.
"""

import numpy as np

from backends.numba_cuda._machine import machine, planned

THREADS = 256
"""Of a block, where nothing says otherwise."""

WARP = 32

BLOCKS_PER_MULTIPROCESSOR = 8
"""Of kernels that go on at a stride of the whole grid: 2048 threads fill a multiprocessor."""


def launch(kernel, grid, block, *arguments):
    """Run a kernel. grid, block: a count, or a tuple of up to three. Blocks of no grid are no launch."""
    machine().launch(kernel, grid, block, [_argument(value) for value in arguments])


def _argument(value):
    return np.float32(value) if type(value) is float else value


def blocks_for(count, threads=THREADS):
    """Blocks of a kernel whose threads go on at a stride of the grid, for this many pieces of work."""
    most = planned().multiprocessors * BLOCKS_PER_MULTIPROCESSOR
    return max(1, min(most, -(-count // threads)))


def threads_for(count, most=THREADS):
    """Threads of a block that goes over this many elements together: a power of two, a warp at least."""
    threads = WARP
    while threads < min(count, most):
        threads *= 2
    return threads
