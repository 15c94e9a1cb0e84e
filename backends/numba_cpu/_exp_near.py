"""exp(x) for a float32 that the caller keeps within -87.33654 .. 88: without the ends of `_exp.py`.

The same polynomial; 2^k for k in -126 .. 127 is one float32, with the exponent k + 127. NaN gives NaN.
A GELU of (256, 3072) takes 0.50 ms on one core with it, and 0.67 with exp.
"""

import numpy as np

from backends.numba_cpu._exp import (
    C3,
    C4,
    C5,
    C6,
    C7,
    HALF,
    LN2_HIGH,
    LN2_LOW,
    LOG2_E,
    MANTISSA_BITS,
    ONE,
)
from backends.numba_cpu._kernel import exact

LOWEST, HIGHEST = np.float32(-87.33654), np.float32(88)
BIAS = np.int32(127)


@exact
def exp_near(x):
    """e to the power of a float32 between LOWEST and HIGHEST."""
    k = np.floor(x * LOG2_E + HALF)
    r = x - k * LN2_HIGH - k * LN2_LOW
    series = C6 + r * C7
    series = C5 + r * series
    series = C4 + r * series
    series = C3 + r * series
    series = HALF + r * series
    series = ONE + r * series
    series = ONE + r * series
    return series * np.int32(np.int32(np.int32(k) + BIAS) << MANTISSA_BITS).view(np.float32)
