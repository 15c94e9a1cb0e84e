"""mean = Σ_c x / C        rstd = 1 / sqrt(Σ_c (x - mean)² / C + eps)

    xhat = (x - mean) · rstd        out = xhat · weight + bias

A block for each row, whose threads go over it together; sums are trees in shared memory.
"""

import numpy as np
from numba import cuda

from backends.numba_cuda._block import MOST_THREADS, block_sum
from backends.numba_cuda._launch import launch, threads_for
from backends.numba_cuda._math import sqrt
from backends.numba_cuda._narrow import narrow, wide
from harness import hookimpl

ZERO, ONE = np.float32(0), np.float32(1)


@hookimpl
def layernorm_forward(out_NC, mean_N, rstd_N, x_NC, weight_C, bias_C, eps):
    N, C = x_NC.shape
    launch(_forward, N, threads_for(C), out_NC, mean_N, rstd_N, x_NC, weight_C, bias_C, eps)


@cuda.jit
def _forward(out_NC, mean_N, rstd_N, x_NC, weight_C, bias_C, eps):
    partial = cuda.shared.array(MOST_THREADS, np.float32)
    n, C = cuda.blockIdx.x, x_NC.shape[1]
    total = ZERO
    for c in range(cuda.threadIdx.x, C, cuda.blockDim.x):
        total += wide(x_NC[n, c])
    mean = block_sum(total, partial) / np.float32(C)
    total = ZERO
    for c in range(cuda.threadIdx.x, C, cuda.blockDim.x):
        centred = wide(x_NC[n, c]) - mean
        total += centred * centred
    rstd = ONE / sqrt(block_sum(total, partial) / np.float32(C) + eps)
    if cuda.threadIdx.x == 0:
        mean_N[n] = mean
        rstd_N[n] = rstd
    for c in range(cuda.threadIdx.x, C, cuda.blockDim.x):
        xhat = (wide(x_NC[n, c]) - mean) * rstd
        out_NC[n, c] = narrow(out_NC, xhat * wide(weight_C[c]) + wide(bias_C[c]))
