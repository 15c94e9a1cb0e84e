"""sum = Σ_p x[p]²

In two launches, each with one order of addition, so that the bits are the same in every run: each block
sums a part of x, its threads four elements at a time (`_fours.py`) and then as a tree (`_block.py`), and
one more block adds the sums of the blocks. How many there are depends on P alone: the same bits on every
card. All is float32: at 124M elements a number is added some hundred times at most.
"""

import numpy as np
from numba import cuda

from backends.numba_cuda._block import MAX_THREADS, block_sum
from backends.numba_cuda._fours import TILE, first_element, four, stride
from backends.numba_cuda._launch import THREADS, launch
from backends.numba_cuda._scratch import room, scratch, takes
from harness import hookimpl

ZERO = np.float32(0)

MAX_PARTS = 1024  # blocks that fill a large card
TILES_OF_BLOCK = 4  # at least, before another block is worth it


@hookimpl
def squared_norm(sum_1, x_P):
    K = _parts(x_P.size)
    (parts_K,) = scratch((K,))
    launch(_sum_of_squares, K, THREADS, parts_K, x_P)
    launch(_add, 1, THREADS, sum_1, parts_K)


def _parts(P):
    return min(MAX_PARTS, -(-P // (TILES_OF_BLOCK * TILE)))


@takes("squared_norm")
def _room(dims, precision, most):
    return room((_parts(dims["P"]),))


@cuda.jit
def _sum_of_squares(parts_K, x_P):
    partial = cuda.shared.array(MAX_THREADS, np.float32)
    a, b, c, d = ZERO, ZERO, ZERO, ZERO
    for p in range(first_element(), x_P.size, stride()):
        x = four(x_P, p)
        a += x[0] * x[0]
        b += x[1] * x[1]
        c += x[2] * x[2]
        d += x[3] * x[3]
    total = block_sum((a + b) + (c + d), partial)
    if cuda.threadIdx.x == 0:
        parts_K[cuda.blockIdx.x] = total


@cuda.jit
def _add(sum_1, parts_K):
    partial = cuda.shared.array(MAX_THREADS, np.float32)
    mine = ZERO
    for k in range(cuda.threadIdx.x, parts_K.size, cuda.blockDim.x):
        mine += parts_K[k]
    total = block_sum(mine, partial)
    if cuda.threadIdx.x == 0:
        sum_1[0] = total
