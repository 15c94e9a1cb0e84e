"""scale = min(1, limit / (sqrt(sum) + 1e-6))        NaN stays, and comes of a sum that is not finite

One thread, in double as the formula is: it computes one number, so that nothing of the step is read back
to decide how far it is clipped.
"""

import numpy as np
from numba import cuda

from backends.numba_cuda._launch import launch
from backends.numba_cuda._math import sqrt
from backends.numba_cuda.guard import NAN, is_finite
from harness import hookimpl
from harness.ops.clip_scale import EPSILON


@hookimpl
def clip_scale(scale_1, sum_1, limit):
    launch(_clip_scale, 1, 1, scale_1, sum_1, np.float64(limit))


@cuda.jit
def _clip_scale(scale_1, sum_1, limit):
    scale, total = scale_1[0], sum_1[0]
    if scale == scale:
        wanted = limit / (sqrt(np.float64(total)) + EPSILON)
        clipped = np.float32(wanted) if wanted < 1 else np.float32(1)
        scale_1[0] = clipped if is_finite(total) else NAN
