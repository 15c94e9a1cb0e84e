"""Sums of columns, for gradients of biases: partial sums over chunks of rows, then the sum of those.

sums_RC = scratch(sums_shape(N, C, dtype))        out[c] = Σ_n x[n,c]
"""

import numpy as np

from backends.cupy_cuda._launch import THREADS, Source, i32, i64, of
from backends.cupy_cuda._machine import planned

BLOCKS_PER_MULTIPROCESSOR = 4
"""Enough to keep memory busy; each leaves a row of partial sums, which are read again."""

MIN_ROWS = 32
"""Of a chunk: four for each of a block's eight warps."""

_SOURCE = Source("columns")


def sums_shape(N, C, dtype):
    """Partial sums of x_NC: (chunks, C)."""
    most = max(1, BLOCKS_PER_MULTIPROCESSOR * planned().multiprocessors // _tiles(C, dtype))
    return max(1, min(most, -(-N // MIN_ROWS))), C


def sum_columns(out_C, x_NC, sums_RC, accumulate):
    """out = Σ_n x[n], or out += Σ_n x[n]."""
    (N, C), grid = x_NC.shape, _grid(x_NC, sums_RC)
    _SOURCE.launch("sum_columns", of(x_NC), grid, THREADS, sums_RC, x_NC, i64(N), i64(C))
    _add_sums(out_C, x_NC, sums_RC, accumulate)


def gelu_backward_columns(dpre_NC, out_C, dout_NC, pre_NC, sums_RC, accumulate):
    """dpre = dout · gelu'(pre), and the sums of its columns, in one pass."""
    (N, C), grid = pre_NC.shape, _grid(pre_NC, sums_RC)
    arguments = dpre_NC, sums_RC, dout_NC, pre_NC, i64(N), i64(C)
    _SOURCE.launch("gelu_backward_columns", of(pre_NC), grid, THREADS, *arguments)
    _add_sums(out_C, pre_NC, sums_RC, accumulate)


def _add_sums(out_C, x_NC, sums_RC, accumulate):
    R, C = sums_RC.shape
    arguments = out_C, sums_RC, i32(R), i64(C), i32(accumulate)
    _SOURCE.launch("add_sums", of(x_NC), -(-C // 32), (32, 32), *arguments)


def _grid(x_NC, sums_RC):
    return _tiles(x_NC.shape[1], x_NC.dtype), sums_RC.shape[0]


def _tiles(C, dtype):
    """Blocks across: each has 32 packs of 16 bytes, or 32 columns where rows are not aligned."""
    pack = 16 // np.dtype(dtype).itemsize
    return -(-C // (32 * pack if C % pack == 0 else 32))
