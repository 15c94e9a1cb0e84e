"""log Σ_v exp(x[v]) of a row, in one pass: (top, total), where total is Σ_v exp(x[v] - top).

Maximum and sum are found together: where top rises, what was summed before is scaled down. First each
thread does so for its own numbers, a piece at a time, and then the block merges what its threads have.
"""

import numpy as np
from numba import cuda

from backends.numba_cuda._block import LOWEST, MAX_THREADS, block_log_sum
from backends.numba_cuda._exp_near import exp_near
from backends.numba_cuda._pieces import AT_ONCE, ZERO, piece, read

NOTHING = np.float32(-np.inf)  # adds exp(-inf - top) = 0


@cuda.jit(device=True)
def row_log_sum(x_V, count):
    """(top, total) of the first `count` numbers of a row, in every thread of its block.

    A NaN passes by top and enters the total.
    """
    tops = cuda.shared.array(MAX_THREADS, np.float32)
    totals = cuda.shared.array(MAX_THREADS, np.float32)
    x_K = cuda.local.array(AT_ONCE, np.float32)
    top, total = LOWEST, ZERO
    for first in range(cuda.threadIdx.x, count, piece()):
        read(x_K, x_V, first, count, NOTHING)
        higher = top
        for k in range(AT_ONCE):
            higher = max(higher, x_K[k])
        total *= exp_near(top - higher)
        top = higher
        for k in range(AT_ONCE):
            total += exp_near(x_K[k] - top)
    return block_log_sum(top, total, tops, totals)
