"""mean = Σ_c x / C        rstd = 1 / sqrt(Σ_c (x - mean)² / C + eps)

    xhat = (x - mean) · rstd        out = xhat · weight + bias

    dxhat   = dout · weight
    dx      = rstd · (dxhat - mean_c(dxhat) - xhat · mean_c(dxhat · xhat))
    dweight = Σ_n dout · xhat       dbias = Σ_n dout

Forward, a block has a row, a thread eight numbers of it at a time (`_pieces.py`), and their sums are
joined as a tree (`_block.py`). It goes over the row three times. The first time it comes from memory,
then from the L1 cache: a copy in shared memory would cost a store for each number to save nothing, and
be an end to the length of rows.

Backward, a block goes over many rows, and its threads each keep dweight and dbias of their own columns
in shared memory on the way. Where rows are longer than that is, blocks in y share the columns. A second
kernel adds up what the blocks have (dweight_BC, dbias_BC), in their order: no atomics, the same bits in
every run.
"""

import numpy as np
from numba import cuda

from backends.numba_cuda._block import MAX_THREADS, block_sum, block_sums
from backends.numba_cuda._launch import WARP, launch
from backends.numba_cuda._machine import planned
from backends.numba_cuda._math import sqrt
from backends.numba_cuda._pieces import AT_ONCE, piece, read, threads_for_row, write
from backends.numba_cuda._scratch import room, scratch, takes
from harness import hookimpl

ZERO, ONE = np.float32(0), np.float32(1)

COLUMNS = 1024
"""Whose sums a block of the backward keeps: 8 KiB of shared memory."""

BLOCKS_AT_ONCE = 12
"""Of the backward, on a multiprocessor: their shared memory leaves the L1 cache room for their rows."""

MIN_ROWS = 8
"""Of a block of the backward: what it leaves to be added up is as long as two rows of float32."""


@hookimpl
def layernorm_forward(out_NC, mean_N, rstd_N, x_NC, weight_C, bias_C, eps):
    normalise(None, out_NC, mean_N, rstd_N, x_NC, None, weight_C, bias_C, eps)


@hookimpl
def layernorm_backward(
    dx_NC,
    dweight_C,
    dbias_C,
    dout_NC,
    x_NC,
    weight_C,
    mean_N,
    rstd_N,
    accumulate,
):
    gradients(dx_NC, dweight_C, dbias_C, None, dout_NC, x_NC, weight_C, mean_N, rstd_N, accumulate)


def normalise(sum_NC, out_NC, mean_N, rstd_N, x_NC, b_NC, weight_C, bias_C, eps):
    """The forward of x_NC; or of x_NC + b_NC, which is written to sum_NC."""
    N, C = x_NC.shape
    buffers = sum_NC, out_NC, mean_N, rstd_N, x_NC, b_NC, weight_C, bias_C
    launch(_forward, N, threads_for_row(C), *buffers, eps)


def gradients(
    dx_NC, dweight_C, dbias_C, dsum_NC, dout_NC, x_NC, weight_C, mean_N, rstd_N, accumulate
):
    """The backward, with dsum_NC (or None) added to dx_NC."""
    N, C = x_NC.shape
    B = _blocks(N)
    dweight_BC, dbias_BC = scratch((B, C), (B, C))
    launch(
        _backward,
        (B, -(-C // COLUMNS)),
        threads_for_row(C),
        dx_NC,
        None if dweight_C is None else dweight_BC,
        None if dbias_C is None else dbias_BC,
        *(dsum_NC, dout_NC, x_NC, weight_C, mean_N, rstd_N),
    )
    if dweight_C is None and dbias_C is None:
        return
    sums = dweight_C, dbias_C, dweight_BC, dbias_BC
    launch(_add_sums, (-(-C // WARP), 2), (WARP, WARP), *sums, accumulate)


def _blocks(N):
    """Blocks that share the rows in the backward."""
    most = planned().multiprocessors * BLOCKS_AT_ONCE
    return max(1, min(most, -(-N // MIN_ROWS)))


@takes("layernorm_backward", "residual_layernorm_backward")
def _room(dims, precision, most):
    B = _blocks(dims["N"])
    return room((B, dims["C"]), (B, dims["C"]))


@cuda.jit
def _forward(sum_NC, out_NC, mean_N, rstd_N, x_NC, b_NC, weight_C, bias_C, eps):
    partial = cuda.shared.array(MAX_THREADS, np.float32)
    x_K = cuda.local.array(AT_ONCE, np.float32)
    weight_K = cuda.local.array(AT_ONCE, np.float32)
    bias_K = cuda.local.array(AT_ONCE, np.float32)
    n, C = cuda.blockIdx.x, x_NC.shape[1]
    # The mean has a pass of its own: mean(x²) - mean² would cancel where the mean is large.
    total = ZERO
    for first in range(cuda.threadIdx.x, C, piece()):
        _read_sum(x_K, x_NC, b_NC, n, first, ZERO)
        for k in range(AT_ONCE):
            total += x_K[k]
    mean = block_sum(total, partial) / np.float32(C)
    # Beyond the row stands the mean: what is not there must add no square.
    total = ZERO
    for first in range(cuda.threadIdx.x, C, piece()):
        _read_sum(x_K, x_NC, b_NC, n, first, mean)
        for k in range(AT_ONCE):
            centred = x_K[k] - mean
            total += centred * centred
    rstd = ONE / sqrt(block_sum(total, partial) / np.float32(C) + eps)
    # Kept for the backward, which then reads a row twice and not four times.
    if cuda.threadIdx.x == 0:
        mean_N[n] = mean
        rstd_N[n] = rstd
    for first in range(cuda.threadIdx.x, C, piece()):
        # Read before the sum is written, which may share memory with either of the two.
        _read_sum(x_K, x_NC, b_NC, n, first, mean)
        read(weight_K, weight_C, first, C, ZERO)
        read(bias_K, bias_C, first, C, ZERO)
        if sum_NC is not None:
            write(sum_NC[n], x_K, first, C)
        for k in range(AT_ONCE):
            xhat = (x_K[k] - mean) * rstd
            x_K[k] = xhat * weight_K[k] + bias_K[k]
        write(out_NC[n], x_K, first, C)


@cuda.jit(device=True)
def _read_sum(x_K, x_NC, b_NC, n, first, beyond):
    """A piece of row n of x, or of x + b before it is rounded."""
    C = x_NC.shape[1]
    read(x_K, x_NC[n], first, C, beyond)
    if b_NC is not None:
        b_K = cuda.local.array(AT_ONCE, np.float32)
        read(b_K, b_NC[n], first, C, ZERO)
        for k in range(AT_ONCE):
            x_K[k] += b_K[k]


@cuda.jit
def _backward(dx_NC, dweight_BC, dbias_BC, dsum_NC, dout_NC, x_NC, weight_C, mean_N, rstd_N):
    partial = cuda.shared.array(MAX_THREADS, np.float32)
    also_partial = cuda.shared.array(MAX_THREADS, np.float32)
    dweight_P = cuda.shared.array(COLUMNS, np.float32)
    dbias_P = cuda.shared.array(COLUMNS, np.float32)
    dout_K = cuda.local.array(AT_ONCE, np.float32)
    xhat_K = cuda.local.array(AT_ONCE, np.float32)
    weight_K = cuda.local.array(AT_ONCE, np.float32)
    dsum_K = cuda.local.array(AT_ONCE, np.float32)
    N, C = x_NC.shape
    thread, threads = cuda.threadIdx.x, cuda.blockDim.x
    left = cuda.blockIdx.y * COLUMNS
    right = min(left + COLUMNS, C)
    # No thread reads what another one keeps, so none waits.
    for c in range(thread, right - left, threads):
        dweight_P[c] = ZERO
        dbias_P[c] = ZERO
    for n in range(cuda.blockIdx.x, N, cuda.gridDim.x):
        dout_C, x_C, mean, rstd = dout_NC[n], x_NC[n], mean_N[n], rstd_N[n]
        mean_dxhat, mean_dxhat_xhat = ZERO, ZERO
        # Every dx needs both means of its row, so it is read once before any is written.
        # Blocks that share the columns each find them: no block waits for another.
        if dx_NC is not None:
            total, total_xhat = ZERO, ZERO
            for first in range(thread, C, piece()):
                read(dout_K, dout_C, first, C, ZERO)
                read(xhat_K, x_C, first, C, mean)
                read(weight_K, weight_C, first, C, ZERO)
                for k in range(AT_ONCE):
                    dxhat = dout_K[k] * weight_K[k]
                    total += dxhat
                    total_xhat += dxhat * ((xhat_K[k] - mean) * rstd)
            total, total_xhat = block_sums(total, total_xhat, partial, also_partial)
            mean_dxhat, mean_dxhat_xhat = total / np.float32(C), total_xhat / np.float32(C)
        # Only the block's own columns now: it has shared memory for the sums of no more.
        for first in range(left + thread, right, piece()):
            read(dout_K, dout_C, first, right, ZERO)
            read(xhat_K, x_C, first, right, mean)
            for k in range(AT_ONCE):
                xhat_K[k] = (xhat_K[k] - mean) * rstd
            if dx_NC is not None:
                read(weight_K, weight_C, first, right, ZERO)
                if dsum_NC is not None:
                    read(dsum_K, dsum_NC[n], first, right, ZERO)
            for k in range(AT_ONCE):
                p = first - left + k * threads
                if p < right - left:
                    if dweight_BC is not None:
                        dweight_P[p] += dout_K[k] * xhat_K[k]
                    if dbias_BC is not None:
                        dbias_P[p] += dout_K[k]
            if dx_NC is not None:
                for k in range(AT_ONCE):
                    dxhat = dout_K[k] * weight_K[k]
                    dx = rstd * (dxhat - mean_dxhat - xhat_K[k] * mean_dxhat_xhat)
                    dout_K[k] = dsum_K[k] + dx if dsum_NC is not None else dx
                write(dx_NC[n], dout_K, first, right)
    # Once a block, and not once a row: this is all that the second kernel has to read again.
    for p in range(thread, right - left, threads):
        if dweight_BC is not None:
            dweight_BC[cuda.blockIdx.x, left + p] = dweight_P[p]
        if dbias_BC is not None:
            dbias_BC[cuda.blockIdx.x, left + p] = dbias_P[p]


@cuda.jit
def _add_sums(dweight_C, dbias_C, dweight_BC, dbias_BC, accumulate):
    """A warp's width of columns for each block: its rows of threads share the rows of the sums."""
    if dweight_C is not None and cuda.blockIdx.y == 0:
        _add_up(dweight_C, dweight_BC, accumulate)
    if dbias_C is not None and cuda.blockIdx.y == 1:
        _add_up(dbias_C, dbias_BC, accumulate)


@cuda.jit(device=True)
def _add_up(out_C, sums_BC, accumulate):
    partial = cuda.shared.array((WARP, WARP), np.float32)
    B, C = sums_BC.shape
    column, row = cuda.threadIdx.x, cuda.threadIdx.y
    c = cuda.blockIdx.x * WARP + column
    # A warp lies along the columns, so that each of its reads is one line of memory.
    total = ZERO
    if c < C:
        for b in range(row, B, WARP):
            total += sums_BC[b, c]
    partial[row, column] = total
    cuda.syncthreads()
    # By one thread, from the first to the last: the order is the same in every run.
    if row == 0 and c < C:
        total = out_C[c] if accumulate else ZERO
        for each in range(WARP):
            total += partial[each, column]
        out_C[c] = total
