"""pre = x · weightᵀ + bias        out = gelu(pre)

    dpre = dout · gelu'(pre)        dx = dpre · weight        dweight = dpreᵀ · x        dbias = Σ_n dpre

Each thread makes one tile of pre with a BLAS of one thread, and takes its GELU right after. The backward
goes through the output features in as few bands as memory allows: a thread makes the columns of dpre
that its rows of dweight need, and at once those rows. dx waits for all threads.

Tiles are not cut up so that GELU finds them in L2: BLAS packs x anew for each piece. On one core (256,
768 -> 3072) takes 6 % longer in pieces of 768 columns and 9 % in pieces of 256; GELU, 3 % of it all, is
as fast from L3.
"""

import numpy as np
from numba import prange

from backends.numba_cpu._blas import nn, nt, tn
from backends.numba_cpu._gelu import gelu, gelu_slope
from backends.numba_cpu._kernel import helper, kernel
from backends.numba_cpu._narrow import narrow, wide
from backends.numba_cpu._optional import given
from backends.numba_cpu._products import ADD, BAND, REPLACE, bands_room, widen
from backends.numba_cpu._runs import add_run, copy_run, fill_run
from backends.numba_cpu._scratch import available, room, scratch, takes
from backends.numba_cpu._threads import threads
from backends.numba_cpu._tiles import GRAIN, coarse_part, tile
from harness import hookimpl

MAX_BYTES = 64 << 20
"""What the backward keeps to outside a plan."""


@hookimpl
def matmul_gelu_forward(out_NO, pre_NO, x_NI, weight_OI, bias_O):
    beta = REPLACE if bias_O is None else ADD
    bias_O = given(bias_O, weight_OI[0])
    if _all_float32(pre_NO, x_NI, weight_OI):
        unused = given(None, pre_NO)
        _forward(out_NO, unused, pre_NO, x_NI, weight_OI, bias_O, beta, 0, threads())
        return
    (N, I), O = x_NI.shape, len(weight_OI)
    wide_x, wide_weight, product = scratch((N, I), (min(BAND, O), I), (N, min(BAND, O)))
    widen(wide_x, x_NI, threads())
    for first in range(0, O, BAND):
        weight = weight_OI[first : first + BAND]
        widen(wide_weight, weight, threads())
        product_NW = _reshaped(product, (N, len(weight)))
        weight = wide_weight[: len(weight)]
        _forward(out_NO, pre_NO, product_NW, wide_x, weight, bias_O, beta, first, threads())


@hookimpl
def matmul_gelu_backward(dx_NI, dweight_OI, dbias_O, dout_NO, pre_NO, x_NI, weight_OI, accumulate):
    (N, I), O = x_NI.shape, len(weight_OI)
    lift = not _all_float32(x_NI, weight_OI) or (dx_NI is not None and not _all_float32(dx_NI))
    width = _band(N, I, O, lift, available(MAX_BYTES))
    if lift:
        dpre, x, dx, weight = scratch(*_shapes(N, I, width, lift))
        widen(x, x_NI, threads())
    else:
        (dpre,), x, dx = scratch(*_shapes(N, I, width, lift)), x_NI, dx_NI
    none_NC, none_C = given(None, dpre), given(None, dpre[0])
    for first in range(0, O, width):
        weight_WI = weight_OI[first : first + width]
        count = len(weight_WI)
        if lift:
            widen(weight, weight_WI, threads())
            weight_WI = weight[:count]
        _backward(
            none_NC if dx_NI is None else dx,
            none_NC if dweight_OI is None else dweight_OI[first : first + count],
            none_C if dbias_O is None else dbias_O[first : first + count],
            _reshaped(dpre, (N, count)),
            dout_NO,
            pre_NO,
            x,
            weight_WI,
            ADD if first else REPLACE,
            ADD if accumulate else REPLACE,
            first,
            threads(),
        )
    if lift and dx_NI is not None:
        widen(dx_NI, dx, threads())


def _all_float32(*arrays):
    return all(array.dtype == np.float32 for array in arrays)


def _reshaped(memory, shape):
    """The beginning of an array, as one of another shape."""
    return memory.reshape(-1)[: shape[0] * shape[1]].reshape(shape)


@kernel
def _forward(out_NO, pre_NO, product_NW, x_NI, weight_WI, bias_O, beta, first, tasks):
    """The columns of out from `first` on. pre is left empty where it is the product's own memory."""
    N, W = product_NW.shape
    for task in prange(tasks):
        top, bottom, left, right = tile(N, W, tasks, task)
        here = slice(first + left, first + right)
        if beta == ADD:
            for n in range(top, bottom):
                copy_run(product_NW[n, left:right], bias_O[here])
        product = product_NW[top:bottom, left:right]
        nt(product, x_NI[top:bottom], weight_WI[left:right], beta)
        for n in range(top, bottom):
            _gelu_run(out_NO[n, here], product_NW[n, left:right])
            if pre_NO.size:
                copy_run(pre_NO[n, here], product_NW[n, left:right])


@kernel
def _backward(
    dx_NI,
    dweight_WI,
    dbias_W,
    dpre_NW,
    dout_NO,
    pre_NO,
    x_NI,
    weight_WI,
    beta_dx,
    beta,
    first,
    tasks,
):
    """What the band of output features from `first` on gives."""
    N, W = dpre_NW.shape
    for task in prange(tasks):
        left, right = coarse_part(W, tasks, task)
        here = slice(first + left, first + right)
        if dbias_W.size and beta == REPLACE:
            fill_run(dbias_W[left:right], REPLACE)
        for n in range(N):
            _gradient_run(dpre_NW[n, left:right], dout_NO[n, here], pre_NO[n, here])
            if dbias_W.size:
                add_run(dbias_W[left:right], dpre_NW[n, left:right])
        if dweight_WI.size:
            tn(dweight_WI[left:right], dpre_NW[:, left:right], x_NI, beta)
    if dx_NI.size:
        I = dx_NI.shape[1]
        for task in prange(tasks):
            top, bottom, left, right = tile(N, I, tasks, task)
            dx = dx_NI[top:bottom, left:right]
            nn(dx, dpre_NW[top:bottom], weight_WI[:, left:right], beta_dx)


@helper
def _gelu_run(out_W, pre_W):
    for w in range(pre_W.size):
        out_W[w] = narrow(out_W, gelu(pre_W[w]))


@helper
def _gradient_run(dpre_W, dout_W, pre_W):
    for w in range(dpre_W.size):
        dpre_W[w] = wide(dout_W[w]) * gelu_slope(wide(pre_W[w]))


@takes("matmul_gelu_forward")
def _forward_scratch(dims, precision, most):
    return bands_room(dims["N"], dims["I"], dims["O"]) if precision == "bf16" else 0


@takes("matmul_gelu_backward")
def _backward_scratch(dims, precision, most):
    N, I, O = (dims[letter] for letter in "NIO")
    lift = precision == "bf16"
    return room(*_shapes(N, I, _band(N, I, O, lift, most), lift))


def _band(N, I, O, lift, nbytes):
    """Output features in a band: of the fewest bands whose scratch fits into so many bytes."""
    bands = -(-O // BAND) if lift else 1
    while True:
        width = min(O, -(-O // (bands * GRAIN)) * GRAIN)
        if width <= GRAIN or room(*_shapes(N, I, width, lift)) <= nbytes:
            return width
        bands += 1


def _shapes(N, I, width, lift):
    """dpre; and where they are bfloat16, x, dx and weight."""
    return [(N, width), (N, I), (N, I), (width, I)] if lift else [(N, width)]
