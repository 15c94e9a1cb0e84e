"""out[c] = Σ_n x[n, c]: the gradient of what was added to every row.

A block has 32 columns and 8 threads for each of them, which go down ROWS rows in turns: a warp reads 32
neighbours. What each block found is summed by a second kernel, in order: the same bits every time.
"""

import numpy as np
from numba import cuda

from backends.numba_cuda._launch import THREADS, WARP, blocks_for, launch
from backends.numba_cuda._narrow import wide

ROWS = 256
"""Of a block."""

TURNS = 8

ZERO = np.float32(0)


def sums_shape(N, C):
    """Scratch of `sum_columns`: what each block found."""
    return -(-N // ROWS), C


def sum_columns(out_C, x_NC, sums_BC, accumulate):
    """out = Σ_n x[n]; + out if `accumulate`."""
    N, C = x_NC.shape
    launch(_block_sums, (-(-C // WARP), -(-N // ROWS)), (WARP, TURNS), sums_BC, x_NC)
    launch(_sum_blocks, blocks_for(C), THREADS, out_C, sums_BC, accumulate)


@cuda.jit
def _block_sums(sums_BC, x_NC):
    partial = cuda.shared.array((TURNS, WARP), np.float32)
    N, C = x_NC.shape
    turn, lane = cuda.threadIdx.y, cuda.threadIdx.x
    c = cuda.blockIdx.x * WARP + lane
    first = cuda.blockIdx.y * ROWS
    total = ZERO
    if c < C:
        for n in range(first + turn, min(first + ROWS, N), TURNS):
            total += wide(x_NC[n, c])
    partial[turn, lane] = total
    cuda.syncthreads()
    if turn == 0 and c < C:
        total = ZERO
        for t in range(TURNS):
            total += partial[t, lane]
        sums_BC[cuda.blockIdx.y, c] = total


@cuda.jit
def _sum_blocks(out_C, sums_BC, accumulate):
    for c in range(cuda.grid(1), out_C.size, cuda.gridsize(1)):
        total = out_C[c] if accumulate else ZERO
        for block in range(sums_BC.shape[0]):
            total += sums_BC[block, c]
        out_C[c] = total
