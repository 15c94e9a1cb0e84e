"""xhat = (x - mean) · rstd        out = xhat · weight + bias"""

import numpy as np
from numba import cuda

from backends.numba_cuda import launch, narrow, sqrt, wide
from harness import hookimpl

device = "cuda"  # its arrays live on a GPU,
arrays = "numba"  # and are Numba's
computes = {"fp32": "f32", "bf16": "f32"}  # precision -> the arithmetic it uses
capturable = True  # it only launches: a step may be recorded, and replayed

THREADS = 64  # of a block
MAX_COLUMNS = 2048  # columns of a row that is kept: 8 KiB of shared memory
ZERO, ONE = np.float32(0), np.float32(1)


@hookimpl
def layernorm_forward(out_NC, mean_N, rstd_N, x_NC, weight_C, bias_C, eps):
    N, C = x_NC.shape
    assert C <= MAX_COLUMNS, "a longer row does not fit into shared memory"
    launch(_forward, N, THREADS, out_NC, mean_N, rstd_N, x_NC, weight_C, bias_C, eps)


@cuda.jit
def _forward(out_NC, mean_N, rstd_N, x_NC, weight_C, bias_C, eps):
    n, thread, C = cuda.blockIdx.x, cuda.threadIdx.x, x_NC.shape[1]
    partial = cuda.shared.array(THREADS, np.float32)
    row = cuda.shared.array(MAX_COLUMNS, np.float32)

    total = ZERO
    for c in range(thread, C, THREADS):
        row[c] = wide(x_NC[n, c])
        total += row[c]
    mean = _sum_of_block(total, partial) / np.float32(C)

    squares = ZERO
    for c in range(thread, C, THREADS):
        centred = row[c] - mean
        squares += centred * centred
    rstd = ONE / sqrt(_sum_of_block(squares, partial) / np.float32(C) + eps)

    for c in range(thread, C, THREADS):
        xhat = (row[c] - mean) * rstd
        out_NC[n, c] = narrow(out_NC, xhat * wide(weight_C[c]) + wide(bias_C[c]))
    if thread == 0:
        mean_N[n] = mean
        rstd_N[n] = rstd


@cuda.jit(device=True)
def _sum_of_block(mine, partial):
    """Σ mine over the threads of the block; every thread gets it."""
    thread = cuda.threadIdx.x
    partial[thread] = mine
    cuda.syncthreads()  # every part is there
    half = THREADS // 2
    while half > 0:
        if thread < half:
            partial[thread] += partial[thread + half]
        cuda.syncthreads()  # this round's sums are there
        half //= 2
    total = partial[0]
    cuda.syncthreads()  # everyone has read it: partial may be written again
    return total


@hookimpl
def layernorm_backward(
    dx_NC, dweight_C, dbias_C, dout_NC, x_NC, weight_C, mean_N, rstd_N, accumulate
):
    N, C = x_NC.shape
    if dx_NC is not None:
        launch(_rows, N, THREADS, dx_NC, dout_NC, x_NC, weight_C, mean_N, rstd_N)
    blocks = (C + THREADS - 1) // THREADS
    launch(_columns, blocks, THREADS, dweight_C, dbias_C, dout_NC, x_NC, mean_N, rstd_N, accumulate)


@cuda.jit
def _rows(dx_NC, dout_NC, x_NC, weight_C, mean_N, rstd_N):
    n, thread, C = cuda.blockIdx.x, cuda.threadIdx.x, x_NC.shape[1]
    partial = cuda.shared.array(THREADS, np.float32)
    mean, rstd = mean_N[n], rstd_N[n]

    sum_dxhat, sum_dxhat_xhat = ZERO, ZERO
    for c in range(thread, C, THREADS):
        xhat = (wide(x_NC[n, c]) - mean) * rstd
        dxhat = wide(dout_NC[n, c]) * wide(weight_C[c])
        sum_dxhat += dxhat
        sum_dxhat_xhat += dxhat * xhat
    mean_dxhat = _sum_of_block(sum_dxhat, partial) / np.float32(C)
    mean_dxhat_xhat = _sum_of_block(sum_dxhat_xhat, partial) / np.float32(C)

    for c in range(thread, C, THREADS):
        xhat = (wide(x_NC[n, c]) - mean) * rstd
        dxhat = wide(dout_NC[n, c]) * wide(weight_C[c])
        dx_NC[n, c] = narrow(dx_NC, rstd * (dxhat - mean_dxhat - xhat * mean_dxhat_xhat))


@cuda.jit
def _columns(dweight_C, dbias_C, dout_NC, x_NC, mean_N, rstd_N, accumulate):
    c = cuda.blockIdx.x * THREADS + cuda.threadIdx.x
    N, C = x_NC.shape
    if c < C:
        dweight, dbias = ZERO, ZERO
        for n in range(N):
            dout = wide(dout_NC[n, c])
            dweight += dout * (wide(x_NC[n, c]) - mean_N[n]) * rstd_N[n]
            dbias += dout
        if dweight_C is not None:
            dweight_C[c] = dweight_C[c] + dweight if accumulate else dweight
        if dbias_C is not None:
            dbias_C[c] = dbias_C[c] + dbias if accumulate else dbias
