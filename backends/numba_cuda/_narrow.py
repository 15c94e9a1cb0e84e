"""Read and write bfloat16, which kernels keep as uint16: the upper half of a float32.

    x = wide(x_NC[n, c])                 float32, whatever the buffer holds
    out_NC[n, c] = narrow(out_NC, x)     rounded to nearest even where the buffer is bfloat16

A buffer of float32 passes through both untouched, so a kernel is written once for the two. Either is one
instruction of a GPU; by integers, as the simulator rounds, it would be six.
"""

from functools import cache

import ml_dtypes
import numpy as np
from numba import types

from backends.numba_cuda._compiled import compiled

HALF_ULP = np.uint32(0x7FFF)
ONE = np.uint32(1)
SHIFT = np.uint32(16)
QUIET = np.uint32(0x40)  # keeps the NaN whose only bits are in the half that is dropped


def as_bits(array):
    """A NumPy array of bfloat16 as uint16; any other as it is. No copy."""
    return array.view(np.uint16) if array.dtype == ml_dtypes.bfloat16 else array


def wide(x):
    """A number of a buffer in float32."""
    return _lengthened(x) if isinstance(x, np.uint16) else x


def narrow(buffer, x):
    """A float32 as the buffer holds numbers."""
    return _rounded(buffer, x) if buffer.dtype == np.uint16 else np.float32(x)


@compiled(wide)
def _wide(x):
    if x == types.uint16:
        return _lengthened
    return lambda x: x


@compiled(narrow)
def _narrow(buffer, x):
    if buffer.dtype == types.uint16:
        nearest = _nearest()
        return lambda buffer, x: nearest(np.float32(x))
    return lambda buffer, x: np.float32(x)


@cache
def _nearest():
    """PTX's own instruction (sm_80 and later): the bits of `_rounded`, but a NaN is always 0x7FFF."""
    from llvmlite import ir
    from numba.cuda.extending import intrinsic

    kind = ir.FunctionType(ir.IntType(16), [ir.FloatType()])
    instruction = ir.InlineAsm(kind, "cvt.rn.bf16.f32 $0, $1;", "=h,f")

    @intrinsic
    def nearest(_, x):
        return types.uint16(types.float32), lambda _, builder, __, x: builder.call(instruction, x)

    return nearest


def _lengthened(x):
    return np.uint32(np.uint32(x) << SHIFT).view(np.float32)


def _rounded(buffer, x):
    bits = np.float32(x).view(np.uint32)
    odd = np.uint32(np.uint32(bits >> SHIFT) & ONE)
    nearest = np.uint32(np.uint32(bits + HALF_ULP + odd) >> SHIFT)
    quiet = np.uint32(np.uint32(bits >> SHIFT) | QUIET)
    return np.uint16(quiet if x != x else nearest)
