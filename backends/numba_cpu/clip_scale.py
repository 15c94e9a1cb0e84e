"""scale = min(1, limit / (sqrt(sum) + 1e-6)), or NaN

One number: it takes less time than calling a kernel. Python's floats are double.
"""

import math

from harness import hookimpl
from harness.ops.clip_scale import EPSILON


@hookimpl
def clip_scale(scale_1, sum_1, limit):
    total = float(sum_1[0])
    if math.isnan(scale_1[0]) or not math.isfinite(total):
        scale_1[0] = math.nan
        return
    scale_1[0] = min(1.0, limit / (math.sqrt(total) + EPSILON))
