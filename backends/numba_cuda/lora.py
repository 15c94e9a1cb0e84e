"""low = x · aᵀ        out = y        out[:, first:first+S] += scale · low · bᵀ

    dy = dout           dlow = scale · dout[:, first:first+S] · b
    dx = dlow · a       da = dlowᵀ · x       db = scale · dout[:, first:first+S]ᵀ · low

All are products in tiles, one for a block, 4 x 4 of its numbers for a thread (`_products.py`). They read
and write the slice where it lies among the other columns, and scale their sums as they write. A matrix
with R rows or columns makes few tiles, so few blocks. The gradients of a and b are sums over all rows:
there the rows are cut into parts, each with blocks of its own, and a second kernel adds what the parts
give (`multiply_tn`).
"""

import numpy as np

from backends.numba_cuda._products import multiply_nn, multiply_nt, multiply_tn, parts_shape
from backends.numba_cuda._scratch import room, scratch, takes
from backends.numba_cuda.cast import cast
from harness import hookimpl


@hookimpl
def lora_forward(out_NO, low_NR, y_NO, x_NI, a_RI, b_SR, first, scale):
    low = low_NR
    if low_NR.dtype != np.float32:
        # Not yet rounded to low's own dtype: only the backward reads it so.
        (low,) = scratch(low_NR.shape)
    multiply_nt(low, x_NI, a_RI)
    if low is not low_NR:
        _copy(low_NR, low)
    _copy(out_NO, y_NO)
    out_NS = out_NO[:, first : first + len(b_SR)]
    multiply_nt(out_NS, low, b_SR, start_MN=y_NO[:, first : first + len(b_SR)], scale=scale)


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
    (N, I), (S, R) = x_NI.shape, b_SR.shape
    dlow_NR, da_parts, db_parts = scratch(*_backward_shapes(N, I, R, S))
    dout_NS = dout_NO[:, first : first + S]
    if dy_NO is not None:
        _copy(dy_NO, dout_NO)
    if db_SR is not None:
        multiply_tn(db_SR, dout_NS, low_NR, db_parts, scale=scale, add=accumulate)
    if dx_NI is None and da_RI is None:
        return
    multiply_nn(dlow_NR, dout_NS, b_SR, scale=scale)
    if dx_NI is not None:
        multiply_nn(dx_NI, dlow_NR, a_RI)
    if da_RI is not None:
        multiply_tn(da_RI, dlow_NR, x_NI, da_parts, add=accumulate)


def _copy(target, source):
    """target = source, rounded where target is bfloat16. They may be one memory."""
    cast(target.reshape(target.size), source.reshape(source.size))


def _backward_shapes(N, I, R, S):
    return (N, R), parts_shape(R, I, N), parts_shape(S, R, N)


@takes("lora_forward")
def _forward_room(dims, precision, most):
    return room((dims["N"], dims["R"])) if precision == "bf16" else 0


@takes("lora_backward")
def _backward_room(dims, precision, most):
    return room(*_backward_shapes(*(dims[letter] for letter in "NIRS")))
