"""scale = NaN where an x is NaN or infinite, and otherwise what it was

The least and the greatest tell: a NaN is both, in NumPy, and an infinity is one of them. np.isfinite
would write an array as long as x.
"""

import math

import numpy as np

from harness import hookimpl


@hookimpl
def guard(scale_1, x_P):
    with np.errstate(invalid="ignore"):
        least, greatest = np.minimum.reduce(x_P), np.maximum.reduce(x_P)
    if not (math.isfinite(least) and math.isfinite(greatest)):
        scale_1[0] = np.nan
