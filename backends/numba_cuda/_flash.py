"""Tiles of one head in shared memory, their products, and which thread has what of them.

    multiply_rows(s, a_DM, b_ND, D)            s += (b a)ᵀ    s is M x N: a tile of scores
    multiply_columns(o, p_NM, b_ND, count)     o += pᵀ b      o is M x W: a tile of results

A block has M rows of one head for itself and goes over the others N = 32 at a time. It is 8 threads in x
and M / 4 in y: M is 32, or less where T is. A thread has four rows that follow one another, and the
eight of a row share out its columns:

    rows        4 y + i                       i < 4
    scores      x + 8 j                       j < 4
    results     4 x + j, and 32 further on    W / 8 of them (2 x + j where W is 16)

So a thread keeps 4 x 4 scores and 4 x W/8 results in registers. For 64 multiply-adds of scores it reads
8 times four numbers, for 32 of results (W = 64) 3 times. The left operand stands the other way round, so
that its four rows are one read; rows begin four banks apart, and so eight threads that read four numbers
each, of eight rows, meet no conflict.

A head is cut into pieces W wide: one of the narrowest of WIDTHS that holds it, or several of the
widest. Scores are summed over all pieces, and the results of each piece have blocks of their own. So any
head fits into shared memory; one of 128 has its scores computed twice, half as much again in all.
"""

import numpy as np
from numba import cuda

from backends.numba_cuda._compiled import compiled
from backends.numba_cuda._narrow import narrow, wide

ZERO, ONE, INFINITE = np.float32(0), np.float32(1), np.float32(np.inf)

M = N = 32
LANES, ROWS = 8, 4
COLUMNS = N // LANES
FOUR = 4
PADDING = 4
WIDTHS = (16, 32, 64)
WIDEST = WIDTHS[-1]


def at(index):
    """An index that is not negative: a kernel need not look, and four neighbours are one read."""
    return index


@compiled(at)
def _at(index):
    return lambda index: np.uint64(index)


def width_for(D):
    """W: how wide the pieces of a head are."""
    return next((width for width in WIDTHS if width >= D), WIDEST)


def shape_for(B, T, H, D):
    """(blocks, threads of each): a block for each tile, of each piece, of each head."""
    groups = -(-min(T, M) // ROWS)
    tiles, pieces = -(-T // (ROWS * groups)), -(-D // width_for(D))
    return B * H * pieces * tiles, (LANES, groups)


@cuda.jit(device=True)
def place_of(block, T, H, D, W):
    """(b, h, first column of its piece, first row of its tile): tiles of a head are neighbours."""
    rows = ROWS * cuda.blockDim.y
    tiles, pieces = (T + rows - 1) // rows, (D + W - 1) // W
    tile, rest = block % tiles, block // tiles
    piece, head = rest % pieces, rest // pieces
    return head // H, head % H, piece * W, tile * rows


@cuda.jit(device=True)
def load_own(tile_DM, x_TD, first, stop, column, part):
    """Fill a tile from rows first .. stop - 1 of x, and W columns from `column` on; zeros beyond.

    part: a local array as long as a thread's part of a row.
    """
    lane = cuda.threadIdx.x
    for m in range(cuda.threadIdx.y, ROWS * cuda.blockDim.y, cuda.blockDim.y):
        _read(part, x_TD, first + m, stop, column)
        for k in range(part.size):
            tile_DM[at(lane + LANES * k), at(m)] = part[k]


@cuda.jit(device=True)
def load_passing(tile_ND, x_TD, first, stop, column, part):
    """The same, the other way round."""
    lane = cuda.threadIdx.x
    for n in range(cuda.threadIdx.y, N, cuda.blockDim.y):
        _read(part, x_TD, first + n, stop, column)
        for k in range(part.size):
            tile_ND[at(n), at(lane + LANES * k)] = part[k]


@cuda.jit(device=True)
def _read(part, x_TD, t, stop, column):
    """All reads before the first is used: one at a time, each would wait for memory by itself."""
    for k in range(part.size):
        d = column + cuda.threadIdx.x + LANES * k
        part[k] = wide(x_TD[at(t), at(d)]) if t < stop and d < x_TD.shape[1] else ZERO


@cuda.jit(device=True)
def store_tile(x_TD, first, column, o, factor):
    """Write results, times a factor, to the rows and columns that there are."""
    T, D = x_TD.shape
    for i in range(ROWS):
        t = first + first_row() + i
        for j in range(o.shape[1]):
            d = column + result_of(j, o.shape[1])
            if t < T and d < D:
                x_TD[at(t), at(d)] = narrow(x_TD, o[i, j] * factor)


@cuda.jit(device=True)
def first_row():
    """Of the thread's four."""
    return cuda.threadIdx.y * ROWS


@cuda.jit(device=True)
def result_of(j, columns):
    """Where the j-th column of results stands, of which the thread has so many."""
    together = min(columns, FOUR)
    return together * (cuda.threadIdx.x + j // together * LANES) + j % together


@cuda.jit(device=True)
def fill(x, value):
    for i in range(x.shape[0]):
        for j in range(x.shape[1]):
            x[i, j] = value


@cuda.jit(device=True)
def multiply_rows(s, a_DM, b_ND, D):
    """s += (b a)ᵀ over the first D columns, and the zeros up to a multiple of four."""
    a = cuda.local.array(ROWS, np.float32)
    b = cuda.local.array((COLUMNS, FOUR), np.float32)
    row, lane = first_row(), cuda.threadIdx.x
    for first in range(0, D, FOUR):
        for j in range(COLUMNS):
            for d in range(FOUR):
                b[j, d] = b_ND[at(lane + LANES * j), at(first + d)]
        for d in range(FOUR):
            for i in range(ROWS):
                a[i] = a_DM[at(first + d), at(row + i)]
            for i in range(ROWS):
                for j in range(COLUMNS):
                    s[i, j] += a[i] * b[j, d]


@cuda.jit(device=True)
def multiply_columns(o, p_NM, b_ND, count):
    """o += pᵀ b over the first `count` rows."""
    p = cuda.local.array(ROWS, np.float32)
    row = first_row()
    for n in range(count):
        for i in range(ROWS):
            p[i] = p_NM[at(n), at(row + i)]
        for j in range(o.shape[1]):
            b = b_ND[at(n), at(result_of(j, o.shape[1]))]
            for i in range(ROWS):
                o[i, j] += p[i] * b
