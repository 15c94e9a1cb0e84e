"""sum = sum_p x[p]^2.

Dot products of short runs with themselves in float32, their sum in float64: more exact than one long
sum, and on both cores.
"""

import numpy as np

from backends.numpy_cpu.blocks import in_blocks
from backends.numpy_cpu.scratch import float32, scratch
from harness import hookimpl

RUN = 4096
"""Numbers in a dot product. BLAS would share one of more than 10,000 among threads of its own."""


@hookimpl
def squared_norm(sum_1, x_P):
    runs, rest = divmod(x_P.size, RUN)
    x_KR = x_P[: runs * RUN].reshape(runs, RUN)
    sums_K = scratch("squared_norm.sums", (runs + 1,))

    def block(rows):
        x = float32("squared_norm.x", x_KR[rows])
        np.vecdot(x, x, out=sums_K[rows])

    in_blocks(block, runs, RUN)
    with np.errstate(all="ignore"):
        last = x_P[runs * RUN :].astype(np.float32)
        sums_K[runs] = np.dot(last, last)
        sum_1[0] = np.add.reduce(sums_K, dtype=np.float64)
