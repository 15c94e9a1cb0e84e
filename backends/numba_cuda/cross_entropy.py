"""lse[n] = log Σ_{v < vocab_size} exp(logits[n,v])        loss[n] = lse[n] - logits[n, target[n]]

    dlogits[n,v] = dloss[n] (exp(logits[n,v] - lse[n]) - [v = target[n]])

A block has a row, its threads eight numbers of it at a time (`_pieces.py`), and reads it once: forward,
the maximum and the sum are found together (`_log_sum.py`); backward, a number is read and written by the
same thread, so that the gradient may be written over the logits.
"""

import numpy as np
from numba import cuda

from backends.numba_cuda._exp_near import exp_near
from backends.numba_cuda._launch import launch
from backends.numba_cuda._log_sum import row_log_sum
from backends.numba_cuda._math import log
from backends.numba_cuda._narrow import wide
from backends.numba_cuda._pieces import AT_ONCE, clear, piece, read, threads_for_row, write
from harness import hookimpl

ZERO, ONE = np.float32(0), np.float32(1)


@hookimpl
def cross_entropy_forward(loss_N, lse_N, logits_NV, targets_N, vocab_size):
    N, V = logits_NV.shape
    buffers = loss_N, lse_N, logits_NV, targets_N
    launch(_forward, N, threads_for_row(V), *buffers, vocab_size)


@hookimpl
def cross_entropy_backward(dlogits_NV, dloss_N, logits_NV, lse_N, targets_N, vocab_size):
    N, V = logits_NV.shape
    buffers = dlogits_NV, dloss_N, logits_NV, lse_N, targets_N
    launch(_backward, N, threads_for_row(V), *buffers, vocab_size)


@cuda.jit
def _forward(loss_N, lse_N, logits_NV, targets_N, vocab_size):
    n = cuda.blockIdx.x
    top, total = row_log_sum(logits_NV[n], vocab_size)
    if cuda.threadIdx.x == 0:
        lse = top + log(total)
        target = targets_N[n]
        lse_N[n] = lse
        loss_N[n] = lse - wide(logits_NV[n, target]) if target >= 0 else ZERO


@cuda.jit
def _backward(dlogits_NV, dloss_N, logits_NV, lse_N, targets_N, vocab_size):
    x_K = cuda.local.array(AT_ONCE, np.float32)
    n, V = cuda.blockIdx.x, logits_NV.shape[1]
    dlogits_V, logits_V = dlogits_NV[n], logits_NV[n]
    dloss, lse, target = dloss_N[n], lse_N[n], targets_N[n]
    # Nothing of an ignored row. Not a product with 0, which would keep a NaN.
    used = vocab_size if target >= 0 else 0
    for first in range(cuda.threadIdx.x, used, piece()):
        read(x_K, logits_V, first, used, ZERO)
        for k in range(AT_ONCE):
            hit = ONE if first + k * cuda.blockDim.x == target else ZERO
            x_K[k] = dloss * (exp_near(x_K[k] - lse) - hit)
        write(dlogits_V, x_K, first, used)
    clear(dlogits_V, used, V)
