"""logits = x · weightᵀ        loss, lse = cross_entropy(logits)

    dlogits = cross_entropy_backward(dloss)        dx = dlogits · weight        dweight = dlogitsᵀ · x

The logits exist for one tile at a time: some rows of x by one band of the vocabulary. Rows come first,
so that x and dx stay in the cache while the weight streams by, once for ROWS rows each way.

Forward, each thread has a part of the vocabulary of its own and a tile that its cache holds; a tile goes
into the running maximum and sum of each row while it is warm, and no thread waits for another until the
sums are brought together. Backward, a band is shared, since all of the vocabulary adds to dx: each
thread makes the dlogits of some columns and their rows of dweight; when all are there, a tile of dx.
"""

import numpy as np
from numba import prange

from backends.numba_cpu._blas import nn, nt, tn
from backends.numba_cpu._kernel import helper, kernel
from backends.numba_cpu._lift import lift, lifted
from backends.numba_cpu._log_sum import LOWEST, ZERO, take_in, weigh
from backends.numba_cpu._optional import given
from backends.numba_cpu._products import widen
from backends.numba_cpu._scratch import available, room, scratch, takes
from backends.numba_cpu._threads import threads
from backends.numba_cpu._tiles import coarse_part, part, tile
from harness import hookimpl

ROWS = 1024
"""Rows of x that the weight passes by at a time, at most."""

MIN_ROWS = 32

WIDEST, NARROWEST = 512, 128
"""Columns of a thread's tile. From 256 to 4096 the time is the same within 5 %, below BLAS is slower."""

MAX_BYTES = 64 << 20
"""Scratch, where no plan lends any."""

ONE = np.float32(1)


@hookimpl
def matmul_cross_entropy_forward(loss_N, lse_N, x_NC, weight_VC, targets_N, vocab_size):
    shapes = _forward_shapes(*x_NC.shape, len(weight_VC), _lifts(x_NC), available(MAX_BYTES))
    logits_TRW, sums_T3R, x_RC, weight_TWC = scratch(*shapes)
    R = logits_TRW.shape[1]
    for first in range(0, len(x_NC), R):
        rows = slice(first, first + R)
        x, targets_R = _float32(x_NC[rows], x_RC), targets_N[rows]
        _sums(sums_T3R, x, weight_VC, targets_R, vocab_size, logits_TRW, weight_TWC, threads())
        _bring_together(loss_N[rows], lse_N[rows], sums_T3R[:, :, : len(x)])
    loss_N[targets_N < 0] = 0


def _bring_together(loss_N, lse_N, sums_T3N):
    """The loss and lse of each row, from every thread's sums over its part of the vocabulary."""
    top_TN, total_TN, at_target_TN = sums_T3N.swapaxes(0, 1)
    with np.errstate(all="ignore"):
        np.maximum.reduce(top_TN, axis=0, out=lse_N)
        np.subtract(top_TN, lse_N, out=top_TN)
        np.exp(top_TN, out=top_TN)
        np.multiply(total_TN, top_TN, out=total_TN)
        np.add.reduce(total_TN, axis=0, out=loss_N)
        np.log(loss_N, out=loss_N)
        np.add(lse_N, loss_N, out=lse_N)
        np.add.reduce(at_target_TN, axis=0, out=loss_N)
        np.subtract(lse_N, loss_N, out=loss_N)


@hookimpl
def matmul_cross_entropy_backward(
    dx_NC,
    dweight_VC,
    dloss_N,
    x_NC,
    weight_VC,
    lse_N,
    targets_N,
    vocab_size,
    accumulate,
):
    shapes = _backward_shapes(*x_NC.shape, len(weight_VC), _lifts(x_NC), available(MAX_BYTES))
    logits_RW, x_RC, dx_RC, weight_WC = scratch(*shapes)
    R = len(logits_RW)
    for first in range(0, len(x_NC), R):
        rows = slice(first, first + R)
        x = _float32(x_NC[rows], x_RC)
        dx = given(None if dx_NC is None else dx_NC[rows], x_NC)
        dx_wide = dx if dx.dtype == np.float32 else dx_RC[: len(dx)]
        _backward(
            dx_wide,
            given(dweight_VC, logits_RW),
            dloss_N[rows],
            x,
            weight_VC,
            lse_N[rows],
            targets_N[rows],
            vocab_size,
            ONE if accumulate or first else ZERO,
            logits_RW,
            weight_WC,
            threads(),
        )
        if dx is not dx_wide:
            widen(dx, dx_wide, threads())


def _float32(x_NC, room_RC):
    if x_NC.dtype == np.float32:
        return x_NC
    wide_NC = room_RC[: len(x_NC)]
    widen(wide_NC, x_NC, threads())
    return wide_NC


@kernel
def _sums(sums_T3R, x_NC, weight_VC, targets_N, vocab_size, logits_TRW, weight_TWC, tasks):
    """Each thread's sums: the largest logit, Σ exp(logit - largest), and the target's logit."""
    N, W = x_NC.shape[0], logits_TRW.shape[2]
    for task in prange(tasks):
        top_N, total_N = sums_T3R[task, 0, :N], sums_T3R[task, 1, :N]
        at_target_N = sums_T3R[task, 2, :N]
        top_N[:] = LOWEST
        total_N[:] = ZERO
        at_target_N[:] = ZERO
        left, right = coarse_part(vocab_size, tasks, task)
        bands = -(-(right - left) // W)
        for band in range(bands):
            start, stop = part(right - left, bands, band)
            first, width = left + start, stop - start
            logits_NW = logits_TRW[task, :N, :width]
            weight_WC = weight_VC[first : first + width]
            lift(weight_WC, weight_TWC[task])
            nt(logits_NW, x_NC, lifted(weight_WC, weight_TWC[task]), ZERO)
            for n in range(N):
                logits_W = logits_TRW[task, n, :width]
                top_N[n], total_N[n] = take_in(logits_W, top_N[n], total_N[n])
                if first <= targets_N[n] < first + width:
                    at_target_N[n] = logits_W[targets_N[n] - first]


@kernel
def _backward(
    dx_NC,
    dweight_VC,
    dloss_N,
    x_NC,
    weight_VC,
    lse_N,
    targets_N,
    vocab_size,
    beta,
    logits_RW,
    weight_WC,
    tasks,
):
    N, C = x_NC.shape
    bands = -(-vocab_size // logits_RW.shape[1])
    for band in range(bands):
        first, end = part(vocab_size, bands, band)
        W = end - first
        for task in prange(tasks):
            left, right = coarse_part(W, tasks, task)
            logits_NW = logits_RW[:N, left:right]
            tokens = slice(first + left, first + right)
            lift(weight_VC[tokens], weight_WC[left:right])
            nt(logits_NW, x_NC, lifted(weight_VC[tokens], weight_WC[left:right]), ZERO)
            for n in range(N):
                _gradient_row(
                    logits_RW[n, left:right], targets_N[n], first + left, lse_N[n], dloss_N[n]
                )
            if dweight_VC.size:
                tn(dweight_VC[tokens], logits_NW, x_NC, beta)
        if dx_NC.size:
            for task in prange(tasks):
                top, bottom, left, right = tile(N, C, tasks, task)
                weight_here = lifted(weight_VC[first:end], weight_WC)[:, left:right]
                add = ZERO if band == 0 else ONE
                nn(dx_NC[top:bottom, left:right], logits_RW[top:bottom, :W], weight_here, add)
    if dweight_VC.size and beta == ZERO:
        dweight_VC[vocab_size:] = ZERO


@helper
def _gradient_row(logits_W, target, first, lse, dloss):
    """The gradient in place of a row of logits, whose first column is the token `first`."""
    if target < 0:
        # Not a product with 0, which would keep a NaN.
        logits_W[:] = ZERO
        return
    weigh(logits_W, lse, dloss)
    if first <= target < first + logits_W.size:
        logits_W[target - first] -= dloss


def _lifts(x_NC):
    """Whether there must be room for tiles in float32, where the operands are not."""
    return x_NC.dtype != np.float32


def _forward_shapes(N, C, V, lift, most):
    def shapes(rows, width):
        width = min(V, width)
        tiles, sums = (threads(), rows, width), (threads(), 3, rows)
        return tiles, sums, (lift * rows, C), (threads(), lift * width, C)

    return _within(most, N, shapes)


def _backward_shapes(N, C, V, lift, most):
    def shapes(rows, width):
        band = min(V, width * threads())
        return (rows, band), (lift * rows, C), (lift * rows, C), (lift * band, C)

    return _within(most, N, shapes)


def _within(most, N, shapes):
    """The shapes for as many rows, and then for tiles as wide, as these bytes allow."""
    rows, width = min(N, ROWS), WIDEST
    while room(*shapes(rows, NARROWEST)) > most and rows > MIN_ROWS:
        rows //= 2
    while room(*shapes(rows, width)) > most and width > NARROWEST:
        width //= 2
    return shapes(rows, width)


@takes("matmul_cross_entropy_forward")
def _forward_scratch(dims, precision, most):
    N, C, V = (dims[letter] for letter in "NCV")
    return room(*_forward_shapes(N, C, V, precision == "bf16", most))


@takes("matmul_cross_entropy_backward")
def _backward_scratch(dims, precision, most):
    N, C, V = (dims[letter] for letter in "NCV")
    return room(*_backward_shapes(N, C, V, precision == "bf16", most))
