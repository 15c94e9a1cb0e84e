"""sum = Σ_p x[p]²

Dot products of short runs with themselves in float32, and their sum in float64.
"""

import numpy as np

from backends.numpy_cpu._blocks import in_blocks
from backends.numpy_cpu._scratch import float32, scratch
from harness import hookimpl

RUN = 4096
"""Numbers in a run. From 10,000 on BLAS would share each dot product among threads of its own."""


@hookimpl
def squared_norm(sum_1, x_P):
    K = x_P.size // RUN
    runs_KR = x_P[: K * RUN].reshape(K, RUN)
    rest = float32("squared_norm.rest", x_P[K * RUN :])
    sums = scratch("squared_norm.sums", (K + 1,))

    def block(rows):
        runs = float32("squared_norm.runs", runs_KR[rows])
        np.vecdot(runs, runs, out=sums[rows])

    in_blocks(block, K, RUN)
    with np.errstate(all="ignore"):
        sums[K] = np.dot(rest, rest)
        sum_1[0] = np.add.reduce(sums, dtype=np.float64)
