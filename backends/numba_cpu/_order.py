"""Float32s as integers in the same order, whose maximum a compiler takes eight or sixteen at a time.

    top = max(top, key(x))          value(top) is the largest x

A maximum of floats it takes one at a time, for the sake of NaN. Here NaN is larger than all else (where
its sign bit is clear; otherwise smaller).
"""

import numpy as np

from backends.numba_cpu._kernel import exact

MAGNITUDE = np.int32(0x7FFFFFFF)
SIGN = np.int32(31)


@exact
def key(x):
    """The integer of a float32."""
    bits = np.float32(x).view(np.int32)
    # Of negative floats the larger integer is the lower number: turn round all bits but the sign.
    return np.int32(bits ^ np.int32(np.int32(bits >> SIGN) & MAGNITUDE))


@exact
def value(number):
    """The float32 of such an integer."""
    bits = np.int32(number)
    return np.int32(bits ^ np.int32(np.int32(bits >> SIGN) & MAGNITUDE)).view(np.float32)
