"""Read and write bfloat16, which Numba does not know: the upper half of a float32, kept as uint16.

    x = wide(x_NC[n, c])                 float32, whatever the buffer holds
    out_NC[n, c] = narrow(out_NC, x)     rounded to nearest even where the buffer is bfloat16

A buffer of float32 passes through both untouched, so a kernel is written once for the two.
"""

import ml_dtypes
import numpy as np
from numba import types
from numba.extending import overload

from backends.numba_cpu._kernel import EXACT

HALF_ULP = np.uint32(0x7FFF)
ONE = np.uint32(1)
SHIFT = np.uint32(16)
QUIET = np.uint32(0x40)  # keeps the NaN whose only bits are in the half that is dropped


def as_bits(buffer):
    """A bfloat16 buffer as uint16; any other as it is. No copy."""
    return buffer.view(np.uint16) if buffer.dtype == ml_dtypes.bfloat16 else buffer


def wide(x):
    """A number of a buffer in float32."""
    raise NotImplementedError("called from compiled code only")


def narrow(buffer, x):
    """A float32 as the buffer holds numbers."""
    raise NotImplementedError("called from compiled code only")


@overload(wide, inline="always", jit_options={"fastmath": EXACT})
def _wide(x):
    if x == types.uint16:
        return lambda x: np.uint32(np.uint32(x) << SHIFT).view(np.float32)
    return lambda x: x


@overload(narrow, jit_options={"fastmath": EXACT})
def _narrow(buffer, x):
    if buffer.dtype == types.uint16:
        return _rounded
    return lambda buffer, x: np.float32(x)


def _rounded(buffer, x):
    bits = np.float32(x).view(np.uint32)
    odd = np.uint32(np.uint32(bits >> SHIFT) & ONE)
    nearest = np.uint32(np.uint32(bits + HALF_ULP + odd) >> SHIFT)
    quiet = np.uint32(np.uint32(bits >> SHIFT) | QUIET)
    return np.uint16(quiet if x != x else nearest)
