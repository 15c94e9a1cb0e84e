"""GELU and its slope of one float32, from one exp and one division.

    s = (1 + tanh u) / 2 = 1 / (1 + e)        e = exp(-2u)        u = sqrt(2/pi) (x + 0.044715 x³)
    out = x s                                 slope = s + x s (1 - s) 2u'        1 - s = e s

1 - s is formed as a product: near 1 the difference would have no digits left.
"""

import math

import numpy as np

from backends.numba_cpu._exp_near import HIGHEST, LOWEST, exp_near
from backends.numba_cpu._kernel import helper

GELU_C = math.sqrt(2 / math.pi)
GELU_A = 0.044715

# 2u = x (U1 + U3 x²)        2u' = U1 + 3 U3 x²
U1 = np.float32(2 * GELU_C)
U3 = np.float32(2 * GELU_C * GELU_A)
THREE_U3 = np.float32(6 * GELU_C * GELU_A)
ONE = np.float32(1)
FLAT = np.float32(8)  # from 6 on, tanh u is 1 in float32


@helper
def gelu(x):
    """x s."""
    exponent = -x * (U1 + U3 * (x * x))
    exponent = LOWEST if exponent < LOWEST else exponent
    exponent = HIGHEST if exponent > HIGHEST else exponent
    return x / (ONE + exp_near(exponent))


@helper
def gelu_slope(x):
    """s + x s (1 - s) 2u'."""
    # Beyond, the slope is 0 or 1; far beyond, e would overflow, and infinity times 0 is NaN. The order
    # of the factors is the compiler's: not even x e may overflow.
    near = FLAT if x > FLAT else x
    near = -FLAT if near < -FLAT else near
    square = near * near
    e = exp_near(-near * (U1 + U3 * square))
    s = ONE / (ONE + e)
    return s + near * s * (e * s) * (U1 + THREE_U3 * square)
