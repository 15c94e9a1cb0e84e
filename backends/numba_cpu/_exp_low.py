"""exp(x) that goes to 0 by way of the subnormal numbers, where that of `_exp.py` is 0 below 2^-125.

The square of exp(x / 2), which is within four units in the last place. For a gradient, which multiplies
it by a number that may be large.
"""

import numpy as np

from backends.numba_cpu._exp import exp
from backends.numba_cpu._kernel import helper

HALF = np.float32(0.5)


@helper
def exp_low(x):
    """e to the power of a float32."""
    root = exp(x * HALF)
    return root * root
