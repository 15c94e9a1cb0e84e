"""low = x · aᵀ        out = y        out[:, first:first+S] += scale · low · bᵀ

    dy = dout           dlow = scale · dout[:, first:first+S] · b
    dx = dlow · a       da = dlowᵀ · x       db = scale · dout[:, first:first+S]ᵀ · low

The slice is a view of the packed columns, which BLAS reads in place. What is scaled is the narrow side:
N · R numbers, and not N · S. Where out is y's own memory, the other columns are not touched.
"""

import numpy as np

from backends.numpy_cpu._products import multiply, product_pieces
from backends.numpy_cpu._scratch import float32, float32_room, scratch
from harness import hookimpl


@hookimpl
def lora_forward(out_NO, low_NR, y_NO, x_NI, a_RI, b_SR, first, scale):
    part = slice(first, first + len(b_SR))
    out_NS, y_NS = out_NO[:, part], y_NO[:, part]
    # Not yet rounded to low's own dtype: only the backward reads it so.
    low = float32_room("lora.low", low_NR)
    with np.errstate(all="ignore"):
        multiply(low, x_NI, a_RI.T)
        _copy(out_NO, y_NO)
        for piece, product in product_pieces(_scaled(low, scale), b_SR.T):
            np.add(y_NS[piece], product, out=out_NS[piece])
        if low is not low_NR:
            np.copyto(low_NR, low)


@hookimpl
def lora_backward(
    dy_NO,
    dx_NI,
    da_RI,
    db_SR,
    dout_NO,
    low_NR,
    x_NI,
    a_RI,
    b_SR,
    first,
    scale,
    accumulate,
):
    dout_NS = dout_NO[:, first : first + len(b_SR)]
    with np.errstate(all="ignore"):
        if dy_NO is not None:
            _copy(dy_NO, dout_NO)
        if db_SR is not None:
            multiply(db_SR, dout_NS.T, _scaled(low_NR, scale), add=accumulate)
        if dx_NI is None and da_RI is None:
            return
        dlow = scratch("lora.low", low_NR.shape)
        multiply(dlow, dout_NS, b_SR)
        np.multiply(dlow, scale, out=dlow)
        if dx_NI is not None:
            multiply(dx_NI, dlow, a_RI)
        if da_RI is not None:
            multiply(da_RI, dlow.T, x_NI, add=accumulate)


def _scaled(low_NR, scale):
    """scale · low, in scratch."""
    low = float32("lora.scaled", low_NR)
    scaled = scratch("lora.scaled", low_NR.shape)
    np.multiply(low, scale, out=scaled)
    return scaled


def _copy(target, source):
    """target = source; nothing where they are one memory, as the contract allows."""
    if not np.may_share_memory(target, source):
        np.copyto(target, source)
