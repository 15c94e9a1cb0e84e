"""probs[v] = exp(logits[v] - max) / Σ_w exp(logits[w] - max)

    dlogits[v] = probs[v] (dprobs[v] - Σ_w probs[w] dprobs[w])

A block has a row, its threads eight numbers of it at a time (`_pieces.py`), and goes over it twice; the
second time it lies in the L2 cache. Forward, maximum and sum are found in one pass (`_log_sum.py`).
Padded columns are not read, and written with zeros.
"""

import numpy as np
from numba import cuda

from backends.numba_cuda._block import MAX_THREADS, block_sum
from backends.numba_cuda._exp_near import exp_near
from backends.numba_cuda._launch import launch
from backends.numba_cuda._log_sum import row_log_sum
from backends.numba_cuda._pieces import AT_ONCE, clear, piece, read, threads_for_row, write
from harness import hookimpl

ZERO, ONE = np.float32(0), np.float32(1)


@hookimpl
def softmax_forward(probs_NV, logits_NV, vocab_size):
    N, V = logits_NV.shape
    launch(_forward, N, threads_for_row(V), probs_NV, logits_NV, vocab_size)


@hookimpl
def softmax_backward(dlogits_NV, dprobs_NV, probs_NV, vocab_size):
    N, V = probs_NV.shape
    launch(_backward, N, threads_for_row(V), dlogits_NV, dprobs_NV, probs_NV, vocab_size)


@cuda.jit
def _forward(probs_NV, logits_NV, vocab_size):
    x_K = cuda.local.array(AT_ONCE, np.float32)
    n, V = cuda.blockIdx.x, logits_NV.shape[1]
    probs_V, logits_V = probs_NV[n], logits_NV[n]
    top, total = row_log_sum(logits_V, vocab_size)
    scale = ONE / total
    for first in range(cuda.threadIdx.x, vocab_size, piece()):
        read(x_K, logits_V, first, vocab_size, ZERO)
        for k in range(AT_ONCE):
            x_K[k] = exp_near(x_K[k] - top) * scale
        write(probs_V, x_K, first, vocab_size)
    clear(probs_V, vocab_size, V)


@cuda.jit
def _backward(dlogits_NV, dprobs_NV, probs_NV, vocab_size):
    partial = cuda.shared.array(MAX_THREADS, np.float32)
    probs_K = cuda.local.array(AT_ONCE, np.float32)
    dprobs_K = cuda.local.array(AT_ONCE, np.float32)
    n, V = cuda.blockIdx.x, probs_NV.shape[1]
    dlogits_V, dprobs_V, probs_V = dlogits_NV[n], dprobs_NV[n], probs_NV[n]
    total = ZERO
    for first in range(cuda.threadIdx.x, vocab_size, piece()):
        read(probs_K, probs_V, first, vocab_size, ZERO)
        read(dprobs_K, dprobs_V, first, vocab_size, ZERO)
        for k in range(AT_ONCE):
            total += probs_K[k] * dprobs_K[k]
    total = block_sum(total, partial)
    for first in range(cuda.threadIdx.x, vocab_size, piece()):
        read(probs_K, probs_V, first, vocab_size, ZERO)
        read(dprobs_K, dprobs_V, first, vocab_size, ZERO)
        for k in range(AT_ONCE):
            dprobs_K[k] = probs_K[k] * (dprobs_K[k] - total)
        write(dlogits_V, dprobs_K, first, vocab_size)
    clear(dlogits_V, vocab_size, V)
