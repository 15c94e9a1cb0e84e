"""low = x · aᵀ        out = y        out[:, first:first+S] += scale · low · bᵀ

    dy = dout           dlow = scale · dout[:, first:first+S] · b
    dx = dlow · a       da = dlowᵀ · x       db = scale · dout[:, first:first+S]ᵀ · low

The products read and write the slice where it lies among the other columns. What is scaled is the narrow
side: N · R numbers, and not N · S. bfloat16 operands are taken up to float32 whole.
"""

import numpy as np
from numba import prange

from backends.numba_cpu._kernel import helper, kernel
from backends.numba_cpu._narrow import narrow, wide
from backends.numba_cpu._products import (
    ADD,
    REPLACE,
    multiply_nn,
    multiply_nt,
    multiply_tn,
    widen,
)
from backends.numba_cpu._scratch import room, scratch, takes
from backends.numba_cpu._threads import threads
from backends.numba_cpu._tiles import part
from backends.numba_cpu.cast import convert
from harness import hookimpl


@hookimpl
def lora_forward(out_NO, low_NR, y_NO, x_NI, a_RI, b_SR, first, scale):
    N, I, (S, R) = *x_NI.shape, b_SR.shape
    scaled, low, x, a, b, sum_NS = scratch((N, R), (N, R), (N, I), (R, I), (S, R), (N, S))
    # Not yet rounded to low's own dtype: only the backward reads it so.
    low = low_NR if low_NR.dtype == np.float32 else low
    multiply_nt(low, _float32(x, x_NI), _float32(a, a_RI))
    if low is not low_NR:
        widen(low_NR, low, threads())
    _scale(scaled, low, np.float32(scale), threads())
    _copy(out_NO, y_NO)
    out_NS = out_NO[:, first : first + S]
    if out_NO.dtype == np.float32:
        multiply_nt(out_NS, scaled, _float32(b, b_SR), ADD)
        return
    widen(sum_NS, out_NS, threads())
    multiply_nt(sum_NS, scaled, _float32(b, b_SR), ADD)
    widen(out_NS, sum_NS, threads())


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
    N, I, (S, R) = *x_NI.shape, b_SR.shape
    scaled, x, dx, a, b, dout_NS = scratch((N, R), (N, I), (N, I), (R, I), (S, R), (N, S))
    scale, beta = np.float32(scale), ADD if accumulate else REPLACE
    if dy_NO is not None:
        _copy(dy_NO, dout_NO)
    dout_NS = _float32(dout_NS, dout_NO[:, first : first + S])
    if db_SR is not None:
        _scale(scaled, low_NR, scale, threads())
        multiply_tn(db_SR, dout_NS, scaled, beta)
    if dx_NI is None and da_RI is None:
        return
    dlow = scaled
    multiply_nn(dlow, dout_NS, _float32(b, b_SR))
    _scale(dlow, dlow, scale, threads())
    if da_RI is not None:
        multiply_tn(da_RI, dlow, _float32(x, x_NI), beta)
    if dx_NI is not None:
        dx = dx_NI if dx_NI.dtype == np.float32 else dx
        multiply_nn(dx, dlow, _float32(a, a_RI))
        if dx is not dx_NI:
            widen(dx_NI, dx, threads())


def _float32(space, array):
    """The array, or if it is bfloat16 the space, filled with its numbers."""
    if array.dtype == np.float32:
        return array
    widen(space, array, threads())
    return space


def _copy(target, source):
    """target = source; nothing where they are one memory, as the contract allows."""
    if not np.may_share_memory(target, source):
        convert(target.reshape(-1), source.reshape(-1), threads())


@kernel
def _scale(out_NR, x_NR, scale, tasks):
    """out = scale · x; they may be one memory."""
    N = len(x_NR)
    for task in prange(tasks):
        start, stop = part(N, tasks, task)
        for n in range(start, stop):
            _scale_row(out_NR[n], x_NR[n], scale)


@helper
def _scale_row(out_R, x_R, scale):
    for r in range(x_R.size):
        out_R[r] = narrow(out_R, scale * wide(x_R[r]))


@takes("lora_forward", "lora_backward")
def _scratch(dims, precision, most):
    N, I, R, S = (dims[letter] for letter in "NIRS")
    return room((N, R), (N, I), (N, I), (N, R), (R, I), (S, R), (N, S))
