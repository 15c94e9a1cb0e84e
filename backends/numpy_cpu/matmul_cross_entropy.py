"""logits = x · weightᵀ, then cross_entropy; dlogits, then dx = dlogits · weight and dweight = dlogitsᵀ · x.

The logits exist for one band of the vocabulary at a time, so each row of the weight is read once each
way. The forward keeps each row's largest logit and its sum of exponentials from band to band.
"""

import numpy as np

from backends.numpy_cpu.blocks import in_blocks
from backends.numpy_cpu.cross_entropy import cross_entropy_gradient
from backends.numpy_cpu.matmul import gradient_product
from backends.numpy_cpu.products import multiply
from backends.numpy_cpu.scratch import scratch
from harness import hookimpl

BAND = 1 << 20
"""Logits at a time: 4 MiB, and 4096 tokens at N = 256."""

NARROWEST = 512
"""Tokens in a band, at least: BLAS is slower on narrower products."""


@hookimpl
def matmul_cross_entropy_forward(loss_N, lse_N, x_NC, weight_VC, targets_N, vocab_size):
    top_N = scratch("head.top", loss_N.shape)
    total_N = scratch("head.total", loss_N.shape)
    at_target_N = scratch("head.at_target", loss_N.shape)
    # Not -inf: a band of logits that are all -inf would then give inf - inf.
    top_N.fill(np.finfo(np.float32).min)
    total_N.fill(0)
    at_target_N.fill(0)
    with np.errstate(all="ignore"):
        for band in _bands(len(x_NC), vocab_size):
            logits_NW = _logits(x_NC, weight_VC[band])

            def block(rows):
                logits, targets = logits_NW[rows], targets_N[rows]
                top, total, at_target = top_N[rows], total_N[rows], at_target_N[rows]
                (here,) = np.nonzero((targets >= band.start) & (targets < band.stop))
                at_target[here] = logits[here, targets[here] - band.start]
                higher = np.maximum(top, np.maximum.reduce(logits, axis=1))
                np.subtract(logits, higher[:, None], out=logits)
                np.exp(logits, out=logits)
                total *= np.exp(top - higher)
                total += np.add.reduce(logits, axis=1)
                top[:] = higher

            in_blocks(block, *logits_NW.shape)
        np.log(total_N, out=lse_N)
        np.add(lse_N, top_N, out=lse_N)
        np.subtract(lse_N, at_target_N, out=loss_N)
        loss_N[targets_N < 0] = 0


@hookimpl
def matmul_cross_entropy_backward(
    dx_NC, dweight_VC, dloss_N, x_NC, weight_VC, lse_N, targets_N, vocab_size, accumulate
):
    # dx is a sum over bands, in float32 whatever its dtype.
    narrow = dx_NC is not None and dx_NC.dtype != np.float32
    dx = scratch("head.dx", dx_NC.shape) if narrow else dx_NC
    with np.errstate(all="ignore"):
        for band in _bands(len(x_NC), vocab_size):
            logits_NW = _logits(x_NC, weight_VC[band])

            def block(rows):
                logits, targets = logits_NW[rows], targets_N[rows]
                cross_entropy_gradient(
                    logits, dloss_N[rows], logits, lse_N[rows], targets, band.start
                )

            in_blocks(block, *logits_NW.shape)
            if dx is not None:
                gradient_product(dx, logits_NW, weight_VC[band], accumulate=band.start > 0)
            if dweight_VC is not None:
                gradient_product(dweight_VC[band], logits_NW.T, x_NC, accumulate)
        if narrow:
            np.copyto(dx_NC, dx)
    if dweight_VC is not None and not accumulate:
        dweight_VC[vocab_size:] = 0


def _bands(N, vocab_size):
    """The bands of the vocabulary, as slices."""
    width = max(NARROWEST, BAND // N)
    for first in range(0, vocab_size, width):
        yield slice(first, min(first + width, vocab_size))


def _logits(x_NC, weight_WC):
    logits_NW = scratch("head.logits", (len(x_NC), len(weight_WC)))
    multiply(logits_NW, x_NC, weight_WC.T)
    return logits_NW
