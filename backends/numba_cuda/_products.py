"""Matrix products of row-major arrays, in tiles:

    nt(out_MN, a_MK, b_NK)    out = a · bᵀ        nn(out_MN, a_MK, b_KN)    out = a · b
    tn(out_MN, a_KM, b_KN)    out = aᵀ · b

A block of 16 x 16 threads makes TILE x TILE numbers of the result, and each thread EACH x EACH of them,
in registers. The block goes along K in steps of DEPTH: it puts that much of a and b into shared memory,
both with K first, waits, asks device memory for the next step's numbers, multiplies while they come, and
waits again before they overwrite the others. What lies beyond an edge is 0 there, so the multiplication
asks for no edges.

    from device memory    8 numbers for 256 products of a thread, in a step
    from shared memory    2 EACH numbers for EACH² products; neighbours read neighbours, four at a time
    from registers        all else

For sm_90 that is 256 multiplications among some 490 instructions in a step: at most half of a core's
peak. Three or four blocks fit on a multiprocessor (63 to 72 registers a thread, 9 KiB), so that others
multiply while one waits. What a GPU makes of it is not measured.

Sums are float32 whatever the operands are, and are rounded once, as they are written.
"""

import numpy as np
from numba import cuda

from backends.numba_cuda._launch import THREADS, blocks_for, launch
from backends.numba_cuda._narrow import narrow, wide
from backends.numba_cuda.gelu import gelu

SIDE = 16
"""Of the square of threads that a block is."""

EACH = 4
TILE = SIDE * EACH
DEPTH = 16

PITCH = TILE + 4
"""From one row of a tile to the next. Four more: threads that fill a column meet in no memory bank."""

RUN = 8
"""Numbers that neighbours read of one row, where rows run along K: 32 bytes, a sector of memory."""

HELD = TILE * DEPTH // SIDE**2
"""Numbers of a tile that a thread brings."""

ROWS_ALONG, ROWS_ACROSS = SIDE**2 // RUN, SIDE**2 // TILE
"""That the block reads at a time, of RUN numbers and of TILE numbers."""

WAYS = TILE // ROWS_ALONG

STEPS = 4
"""Of DEPTH whose numbers a thread fetches from shared memory together: the next are on their way while
the first are multiplied, and the loop's own instructions are few beside STEPS EACH² products."""

BLOCKS = 256
"""That a GPU should have to do: a result with fewer has its sums along K cut into parts."""

MIN_PART = 64
"""Of K, in a part."""

ZERO, ONE = np.float32(0), np.float32(1)


def multiply_nt(out_MN, a_MK, b_NK, *, bias_N=None, start_MN=None, pre_MN=None, scale=1.0):
    """out = start + scale · a · bᵀ + bias; with `pre`, that is pre, and out its GELU."""
    K = a_MK.shape[1]
    operands = a_MK, None, b_NK, None
    _multiply(out_MN, operands, K, None, start_MN, scale, bias_N, pre_MN)


def multiply_nn(out_MN, a_MK, b_KN, *, scale=1.0):
    """out = scale · a · b."""
    K = a_MK.shape[1]
    _multiply(out_MN, (a_MK, None, None, b_KN), K, None, None, scale)


def multiply_tn(out_MN, a_KM, b_KN, parts, *, scale=1.0, add=False):
    """out = scale · aᵀ · b; + out if `add`. parts: scratch of `parts_shape`."""
    K = a_KM.shape[0]
    start_MN = out_MN if add else None
    _multiply(out_MN, (None, a_KM, None, b_KN), K, parts, start_MN, scale)


def parts_shape(M, N, K):
    """Scratch of `multiply_tn`: the product over each part of K. One number, of large results."""
    count = _parts(M, N, K)
    return (count * M * N if count > 1 else 1,)


def _parts(M, N, K):
    blocks = -(-M // TILE) * -(-N // TILE)
    return max(1, min(BLOCKS // blocks, K // MIN_PART))


def _multiply(out_MN, operands, K, parts, start_MN, scale, bias_N=None, pre_MN=None):
    M, N = out_MN.shape
    count = 1 if parts is None else _parts(M, N, K)
    grid = -(-N // TILE), -(-M // TILE), count
    # A part is whole steps, so that none of them is computed twice.
    length = -(-K // (count * DEPTH)) * DEPTH
    ends = out_MN, start_MN, bias_N, pre_MN, scale
    if count == 1:
        launch(_product, grid, (SIDE, SIDE), *ends, None, *operands, K, length)
        return
    parts_PMN = parts[: count * M * N].reshape(count, M, N)
    launch(_product, grid, (SIDE, SIDE), *ends, parts_PMN, *operands, K, length)
    launch(_sum_parts, blocks_for(M * N), THREADS, *ends, parts_PMN)


@cuda.jit
def _product(out_MN, start_MN, bias_N, pre_MN, scale, parts_PMN, a_MK, a_KM, b_NK, b_KN, K, length):
    """Of a and of b, one is given: as it lies in memory."""
    a_tile = cuda.shared.array((DEPTH, PITCH), np.float32, alignment=16)
    b_tile = cuda.shared.array((DEPTH, PITCH), np.float32, alignment=16)
    a_held = cuda.local.array(HELD, np.float32)
    b_held = cuda.local.array(HELD, np.float32)
    total = cuda.local.array((EACH, EACH), np.float32)
    a = cuda.local.array((STEPS, EACH), np.float32)
    b = cuda.local.array((STEPS, EACH), np.float32)
    top, left = cuda.blockIdx.y * TILE, cuda.blockIdx.x * TILE
    row, column = cuda.threadIdx.y * EACH, cuda.threadIdx.x * EACH
    # A thread wholly beyond the edge helps to load, no more.
    has_work = top + row < out_MN.shape[0] and left + column < out_MN.shape[1]
    for i in range(EACH):
        for j in range(EACH):
            total[i, j] = ZERO
    first = cuda.blockIdx.z * length
    last = min(first + length, K)
    _read(a_held, a_MK, a_KM, top, first)
    _read(b_held, b_NK, b_KN, left, first)
    for k0 in range(first, last, DEPTH):
        _put(a_tile, a_held, a_MK)
        _put(b_tile, b_held, b_NK)
        cuda.syncthreads()
        if k0 + DEPTH < last:
            _read(a_held, a_MK, a_KM, top, k0 + DEPTH)
            _read(b_held, b_NK, b_KN, left, k0 + DEPTH)
        if has_work:
            for k in range(0, DEPTH, STEPS):
                for step in range(STEPS):
                    for i in range(EACH):
                        a[step, i] = a_tile[k + step, row + i]
                for step in range(STEPS):
                    for j in range(EACH):
                        b[step, j] = b_tile[k + step, column + j]
                for step in range(STEPS):
                    for i in range(EACH):
                        for j in range(EACH):
                            total[i, j] += a[step, i] * b[step, j]
        cuda.syncthreads()
    for i in range(EACH):
        for j in range(EACH):
            m, n = top + row + i, left + column + j
            if m < out_MN.shape[0] and n < out_MN.shape[1]:
                if parts_PMN is not None:
                    parts_PMN[cuda.blockIdx.z, m, n] = total[i, j]
                if parts_PMN is None:
                    _write(out_MN, start_MN, bias_N, pre_MN, scale, m, n, total[i, j])


@cuda.jit
def _sum_parts(out_MN, start_MN, bias_N, pre_MN, scale, parts_PMN):
    """What the parts along K give together, in their order."""
    M, N = out_MN.shape
    for place in range(cuda.grid(1), M * N, cuda.gridsize(1)):
        m, n = place // N, place % N
        total = ZERO
        for part in range(parts_PMN.shape[0]):
            total += parts_PMN[part, m, n]
        _write(out_MN, start_MN, bias_N, pre_MN, scale, m, n, total)


@cuda.jit(device=True)
def _write(out_MN, start_MN, bias_N, pre_MN, scale, m, n, total):
    """One number of the result, once its sum is known."""
    total = scale * total
    if bias_N is not None:
        total += wide(bias_N[n])
    if start_MN is not None:
        total += wide(start_MN[m, n])
    if pre_MN is not None:
        pre_MN[m, n] = narrow(pre_MN, total)
        total = gelu(total)
    out_MN[m, n] = narrow(out_MN, total)


@cuda.jit(device=True)
def _read(held, matrix_TK, matrix_KT, first, k0):
    """This thread's numbers of the tile that begins there; 0 beyond an edge.

    Along K a warp reads RUN numbers of each of four rows, across it 32 numbers of one row.
    """
    thread = cuda.threadIdx.y * SIDE + cuda.threadIdx.x
    if matrix_TK is not None:
        for i in range(HELD):
            t = first + thread // RUN + ROWS_ALONG * (i % WAYS)
            k = k0 + thread % RUN + RUN * (i // WAYS)
            held[i] = ZERO
            if t < matrix_TK.shape[0] and k < matrix_TK.shape[1]:
                held[i] = wide(matrix_TK[np.uint64(t), np.uint64(k)])
    if matrix_KT is not None:
        for i in range(HELD):
            t = first + thread % TILE
            k = k0 + thread // TILE + ROWS_ACROSS * i
            held[i] = ZERO
            if t < matrix_KT.shape[1] and k < matrix_KT.shape[0]:
                held[i] = wide(matrix_KT[np.uint64(k), np.uint64(t)])


@cuda.jit(device=True)
def _put(tile_KT, held, matrix_TK):
    """Write the numbers where the block finds them: K first, whichever way they were read."""
    thread = cuda.threadIdx.y * SIDE + cuda.threadIdx.x
    if matrix_TK is not None:
        for i in range(HELD):
            k, t = thread % RUN + RUN * (i // WAYS), thread // RUN + ROWS_ALONG * (i % WAYS)
            tile_KT[k, t] = held[i]
    if matrix_TK is None:
        for i in range(HELD):
            tile_KT[thread // TILE + ROWS_ACROSS * i, thread % TILE] = held[i]
