import ml_dtypes
import numpy as np

from tests.conformance.honest import honest

BF16 = np.dtype(ml_dtypes.bfloat16)


@honest("cast", "NumPy's own assignment")
def cast(out_P, x_P):
    out_P[...] = x_P


@honest("cast", "bfloat16 by integer arithmetic: add half of the last place, ties to even")
def by_bits(out_P, x_P):
    if out_P.dtype != BF16 or x_P.dtype != np.float32:
        out_P[...] = x_P
        return
    bits = x_P.view(np.uint32)
    odd = (bits >> np.uint32(16)) & np.uint32(1)
    rounded = (bits + np.uint32(0x7FFF) + odd) >> np.uint32(16)
    # A NaN's mantissa must not carry into its sign.
    rounded = np.where(np.isnan(x_P), np.uint32(0x7FC0), rounded)
    out_P.view(np.uint16)[...] = rounded
