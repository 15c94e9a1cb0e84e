import math

import numpy as np

from tests.conformance.honest import honest

EPSILON = 1e-6


@honest("clip_scale", "the formula in double")
def clip_scale(scale_1, sum_1, limit):
    total = float(sum_1[0])
    if math.isnan(scale_1[0]) or not math.isfinite(total):
        scale_1[0] = math.nan
        return
    scale_1[0] = min(1.0, limit / (math.sqrt(total) + EPSILON))


@honest("clip_scale", "without a branch: NaN is carried by the arithmetic")
def branchless(scale_1, sum_1, limit):
    with np.errstate(all="ignore"):
        bad = scale_1.astype(np.float64) * 0 + sum_1.astype(np.float64) * 0
        scale = np.minimum(1.0, limit / (np.sqrt(sum_1.astype(np.float64)) + EPSILON))
        scale_1[...] = scale + bad
