"""lse[n] = log Σ_{v < vocab_size} exp(logits[n,v])        loss[n] = lse[n] - logits[n, target[n]]

    dlogits[n,v] = dloss[n] (exp(logits[n,v] - lse[n]) - [v = target[n]])

A block is a few rows, two at V = 50304, whose exponentials are still in the cache when they are summed.
The gradient is made in dlogits itself, which may share the memory of logits.
"""

import numpy as np

from backends.numpy_cpu._blocks import in_blocks
from backends.numpy_cpu._scratch import float32, float32_room, scratch
from harness import hookimpl


@hookimpl
def cross_entropy_forward(loss_N, lse_N, logits_NV, targets_N, vocab_size):
    def block(rows):
        logits = float32("cross_entropy.logits", logits_NV[rows, :vocab_size])
        loss, lse, targets = loss_N[rows], lse_N[rows], targets_N[rows]
        exp = scratch("cross_entropy.exp", logits.shape)
        top = scratch("cross_entropy.top", lse.shape)
        np.maximum.reduce(logits, axis=1, out=top)
        np.subtract(logits, top[:, None], out=exp)
        np.exp(exp, out=exp)
        np.add.reduce(exp, axis=1, out=lse)
        np.log(lse, out=lse)
        np.add(lse, top, out=lse)
        loss.fill(0)
        (kept,) = np.nonzero(targets >= 0)
        loss[kept] = lse[kept] - logits[kept, targets[kept]]

    in_blocks(block, *logits_NV.shape)


@hookimpl
def cross_entropy_backward(dlogits_NV, dloss_N, logits_NV, lse_N, targets_N, vocab_size):
    def block(rows):
        dlogits = dlogits_NV[rows, :vocab_size]
        room = float32_room("cross_entropy.dlogits", dlogits)
        logits, targets = logits_NV[rows, :vocab_size], targets_N[rows]
        logit_gradient(room, dloss_N[rows], logits, lse_N[rows], targets, first=0)
        if room is not dlogits:
            np.copyto(dlogits, room)
        dlogits_NV[rows, vocab_size:] = 0

    in_blocks(block, *logits_NV.shape)


def logit_gradient(dlogits, dloss, logits, lse, targets, first):
    """The gradient in a block of logits, whose columns are the tokens from `first` on.

    dlogits is float32, and may be logits.
    """
    np.subtract(logits, lse[:, None], out=dlogits)
    np.exp(dlogits, out=dlogits)
    # An ignored row, -1, stands in no band.
    (here,) = np.nonzero((targets >= first) & (targets < first + logits.shape[1]))
    dlogits[here, targets[here] - first] -= 1
    np.multiply(dlogits, dloss[:, None], out=dlogits)
    # Not a product with 0, which would keep a NaN.
    dlogits[targets < 0] = 0
