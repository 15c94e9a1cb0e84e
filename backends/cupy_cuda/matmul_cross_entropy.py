"""logits = x · weightᵀ        loss, lse = cross_entropy(logits)

    dlogits = cross_entropy_backward(dloss)        dx = dlogits · weight        dweight = dlogitsᵀ · x

The logits exist for one chunk of rows at a time, in the dtype of x, and become dlogits where they stand.

Logits that were rounded, or made of rounded numbers, have another lse than the one given, which may come
of another arithmetic: of logits near 1000 it is off by several, and exp(logit - lse) far above 1. So the
backward takes theirs, with one more read of the chunk; only fp32 uses what it is given.
"""

import numpy as np

from backends.cupy_cuda._launch import BFLOAT16
from backends.cupy_cuda._machine import machine
from backends.cupy_cuda._products import WORKSPACE, Products, rows
from backends.cupy_cuda._scratch import available, room, scratch, takes
from backends.cupy_cuda.cross_entropy import cross_entropy_backward, cross_entropy_forward
from harness import hookimpl

MAX_BYTES = 512 << 20
"""Of logits outside a plan."""

GRAIN = 128
"""Rows in a chunk are a multiple of it where memory allows: products are made of such tiles."""


@hookimpl
def matmul_cross_entropy_forward(loss_N, lse_N, x_NC, weight_VC, targets_N, vocab_size):
    _forward(loss_N, lse_N, x_NC, weight_VC, targets_N, vocab_size, tf32=False)


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
    inputs = dloss_N, x_NC, weight_VC, lse_N, targets_N
    _backward(dx_NC, dweight_VC, *inputs, vocab_size, accumulate, tf32=False)


def matmul_cross_entropy_forward_tf32(loss_N, lse_N, x_NC, weight_VC, targets_N, vocab_size):
    """The same at precision=tf32: operands are rounded to it."""
    _forward(loss_N, lse_N, x_NC, weight_VC, targets_N, vocab_size, tf32=True)


def matmul_cross_entropy_backward_tf32(
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
    inputs = dloss_N, x_NC, weight_VC, lse_N, targets_N
    _backward(dx_NC, dweight_VC, *inputs, vocab_size, accumulate, tf32=True)


def _forward(loss_N, lse_N, x_NC, weight_VC, targets_N, vocab_size, tf32):
    for here, products, logits, x, _ in _chunks(x_NC, weight_VC, tf32):
        products.nt(logits, x, weight_VC)
        stats = rows(loss_N, *here), rows(lse_N, *here)
        cross_entropy_forward(*stats, logits, rows(targets_N, *here), vocab_size)


def _backward(
    dx_NC,
    dweight_VC,
    dloss_N,
    x_NC,
    weight_VC,
    lse_N,
    targets_N,
    vocab_size,
    accumulate,
    tf32,
):
    rounded = tf32 or x_NC.dtype != np.float32
    for here, products, logits, x, (loss, own_lse) in _chunks(x_NC, weight_VC, tf32):
        products.nt(logits, x, weight_VC)
        dloss, lse, targets = (rows(array, *here) for array in (dloss_N, lse_N, targets_N))
        if rounded:
            cross_entropy_forward(loss, own_lse, logits, targets, vocab_size)
            lse = own_lse
        cross_entropy_backward(logits, dloss, logits, lse, targets, vocab_size)
        if dx_NC is not None:
            products.nn(rows(dx_NC, *here), logits, weight_VC)
        if dweight_VC is not None:
            products.tn(dweight_VC, logits, x, add=accumulate or here[0] > 0)


def _chunks(x_NC, weight_VC, tf32):
    """Yield ((first, last), products, room for logits, x, room for loss and lse) for chunks of rows."""
    N, V, dtype = x_NC.shape[0], weight_VC.shape[0], np.dtype(x_NC.dtype)
    count = _rows(N, V, dtype.itemsize, available(_fixed_room(N) + MAX_BYTES))
    *fixed, memory = scratch(*_fixed_shapes(N), _floats(count, V, dtype.itemsize))
    products, stats = Products(fixed[0], tf32), fixed[1:]
    for first in range(0, N, count):
        here = first, min(first + count, N)
        logits = machine().view(memory, 0, (here[1] - first, V), dtype)
        yield here, products, logits, rows(x_NC, *here), [rows(array, *here) for array in stats]


def _rows(N, V, itemsize, nbytes):
    """Rows of a chunk: of as few chunks of one size as so many bytes allow."""
    most = max(1, (nbytes - _fixed_room(N)) // (V * itemsize))
    if most >= N:
        return N
    return most // GRAIN * GRAIN or most


def _fixed_shapes(N):
    return WORKSPACE, (N,), (N,)


def _fixed_room(N):
    return room(*_fixed_shapes(N))


def _floats(count, V, itemsize):
    return (-(-count * V * itemsize // 4),)


@takes("matmul_cross_entropy_forward", "matmul_cross_entropy_backward")
def _room(dims, precision, most):
    N, V = dims["N"], dims["V"]
    itemsize = (BFLOAT16 if precision == "bf16" else np.dtype(np.float32)).itemsize
    count = _rows(N, V, itemsize, _fixed_room(N) + most)
    return room(*_fixed_shapes(N), _floats(count, V, itemsize))
