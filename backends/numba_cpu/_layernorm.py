"""Normalise one row while it lies in L1: of a LayerNorm, alone or after a residual."""

import numpy as np

from backends.numba_cpu._kernel import helper
from backends.numba_cpu._narrow import narrow, wide

ZERO, ONE = np.float32(0), np.float32(1)


@helper
def normalise(out_C, x_C, weight_C, bias_C, eps):
    """out = xhat · weight + bias. Returns mean and rstd."""
    C = np.float32(x_C.size)
    total = ZERO
    for c in range(x_C.size):
        total += wide(x_C[c])
    mean = total / C
    squares = ZERO
    for c in range(x_C.size):
        centred = wide(x_C[c]) - mean
        squares += centred * centred
    rstd = ONE / np.sqrt(squares / C + eps)
    for c in range(x_C.size):
        xhat = (wide(x_C[c]) - mean) * rstd
        out_C[c] = narrow(out_C, xhat * wide(weight_C[c]) + wide(bias_C[c]))
    return mean, rstd
