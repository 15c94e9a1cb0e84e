"""low = x · aᵀ        out = y        out[:, first:first+S] += scale · low · bᵀ

    dy = dout           dlow = dout[:, first:first+S] · b        (scale enters where dlow is used)
    dx = scale dlow · a      da = scale dlowᵀ · x      db = scale dout[:, first:first+S]ᵀ · low

What is of rank R is narrow. The library makes low and dlow, in float32, and reads the slice where it
lies. What they give is added by a kernel of our own, which takes them unrounded: no library multiplies
float32 by bfloat16. For da, x is taken up to float32 a chunk of rows at a time.
"""

import numpy as np

from backends.cupy_cuda._launch import BFLOAT16, THREADS, Source, blocks_for, f32, i32, i64, of
from backends.cupy_cuda._machine import machine
from backends.cupy_cuda._products import WORKSPACE, Products, columns, rows
from backends.cupy_cuda._scratch import available, room, scratch, takes
from harness import hookimpl

MAX_BYTES = 64 << 20
"""Of x in float32 outside a plan."""

_SOURCE = Source("lora")


@hookimpl
def lora_forward(out_NO, low_NR, y_NO, x_NI, a_RI, b_SR, first, scale):
    workspace, low = scratch(WORKSPACE, low_NR.shape)
    # Rounded to low's own dtype only as it is kept.
    kept_NR = None if low_NR.dtype == np.float32 else low_NR
    low = low_NR if kept_NR is None else low
    Products(workspace).nt(low, x_NI, a_RI)
    S, R = b_SR.shape
    _add(out_NO, kept_NR, y_NO, low, b_SR, (S, first), (R, 1), scale)


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
    wide_rows = _wide_rows(N, I, R, x_NI.dtype, available(_fixed_room(N, R) + MAX_BYTES))
    workspace, dlow_NR, x_WI = scratch(WORKSPACE, (N, R), (wide_rows, I))
    products, dout_NS = Products(workspace), columns(dout_NO, first, S)
    if dy_NO is not None:
        _copy(dy_NO, dout_NO)
    if db_SR is not None:
        products.tn(db_SR, dout_NS, low_NR, scale=scale, add=accumulate)
    if dx_NI is None and da_RI is None:
        return
    products.nn(dlow_NR, dout_NS, b_SR)
    if dx_NI is not None:
        _add(dx_NI, None, None, dlow_NR, a_RI, (I, 0), (1, I), scale)
    if da_RI is not None:
        for start, dlow, x in _in_float32(dlow_NR, x_NI, x_WI):
            products.tn(da_RI, dlow, x, scale=scale, add=accumulate or start > 0)


def _add(out_NO, kept_NR, y_NO, low_NR, weight, part, strides, scale):
    """part: (columns, the first of them). strides: of the weight, by column and by rank."""
    (N, O), R = out_NO.shape, low_NR.shape[1]
    blocks = max(1, min(N, machine().multiprocessors * 8))
    arguments = out_NO, kept_NR, y_NO, low_NR, weight, i64(N), i64(O), i32(R)
    sizes = (*map(i64, (*part, *strides)), f32(scale))
    _SOURCE.launch(
        "low_rank_add", of(out_NO), blocks, THREADS, *arguments, *sizes, shared_bytes=4 * R
    )


def _copy(target, source):
    """target = source; nothing where they are one memory, as the contract allows."""
    if target.data.ptr != source.data.ptr:
        blocks = blocks_for(source.nbytes // 16 + 1)
        _SOURCE.launch("copy", of(source), blocks, THREADS, target, source, i64(source.size))


def _in_float32(dlow_NR, x_NI, x_WI):
    """Yield (first row, rows of dlow, rows of x in float32): all at once where x is float32."""
    if x_NI.dtype == np.float32:
        yield 0, dlow_NR, x_NI
        return
    N, W = x_NI.shape[0], x_WI.shape[0]
    for start in range(0, N, W):
        stop = min(start + W, N)
        wide, narrow = rows(x_WI, 0, stop - start), rows(x_NI, start, stop)
        blocks = blocks_for(narrow.nbytes // 16 + 1)
        _SOURCE.launch("widen", of(narrow), blocks, THREADS, wide, narrow, i64(narrow.size))
        yield start, rows(dlow_NR, start, stop), wide


def _fixed_room(N, R):
    return room(WORKSPACE, (N, R))


def _wide_rows(N, I, R, dtype, nbytes):
    """Rows of x in float32 that fit beside the rest; none where x is float32."""
    if np.dtype(dtype) == np.float32:
        return 0
    fitting = (nbytes - _fixed_room(N, R)) // (4 * I)
    # Rows begin at a multiple of 16 bytes: the kernel reads that many at a time.
    return min(N, max(16, fitting // 16 * 16))


@takes("lora_forward")
def _forward_room(dims, precision, most):
    return room(WORKSPACE, (dims["N"], dims["R"]))


@takes("lora_backward")
def _backward_room(dims, precision, most):
    N, I, R = (dims[letter] for letter in "NIR")
    dtype = BFLOAT16 if precision == "bf16" else np.float32
    return room(WORKSPACE, (N, R), (_wide_rows(N, I, R, dtype, _fixed_room(N, R) + most), I))
