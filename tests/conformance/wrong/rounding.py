"""Roundings that a kernel does without saying so."""

import ml_dtypes
import numpy as np


def as_bf16(x):
    """x with 8 bits of mantissa, in float32 again."""
    return x.astype(ml_dtypes.bfloat16).astype(np.float32)


def as_tf32(x):
    """x with 11 bits of mantissa, as a tensor core reads it."""
    with np.errstate(all="ignore"):
        shifted = x * np.float32(1 + 2**13)
        return np.where(np.isfinite(shifted), shifted - (shifted - x), x)


def as_half(x):
    """x with 11 bits of mantissa and 5 of exponent, as float16."""
    with np.errstate(all="ignore"):
        return x.astype(np.float16).astype(np.float32)
