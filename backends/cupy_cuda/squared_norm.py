"""sum = Σ_p x[p]²

Each block sums a part, and one more block adds the parts, in double and in a fixed order: how many parts
there are depends on P alone, so the bits are the same on every card.
"""

import numpy as np

from backends.cupy_cuda._launch import THREADS, Source, i32, i64, of
from backends.cupy_cuda._scratch import room, scratch, takes
from harness import hookimpl

_SOURCE = Source("squared_norm")

MAX_PARTS = 1024  # the last block has a thread for each
QUADS_OF_THREAD = 4  # at least, before another block is worth it


@hookimpl
def squared_norm(sum_1, x_P):
    P = x_P.size
    K = _parts(P)
    (parts_K,) = scratch((K,), dtype=np.float64)
    defines = of(x_P)
    _SOURCE.launch("sum_of_squares", defines, K, THREADS, parts_K, x_P, i64(P))
    _SOURCE.launch("add_parts", defines, 1, -(-K // 32) * 32, sum_1, parts_K, i32(K))


def _parts(P):
    return min(MAX_PARTS, max(1, -(-P // (4 * QUADS_OF_THREAD * THREADS))))


@takes("squared_norm")
def _room(dims, precision, most):
    return room((_parts(dims["P"]),), dtype=np.float64)
