"""lse = log sum_v exp(logits[v]), loss = lse - logits[target]; dlogits = dloss (exp(logits - lse) - [v = target]).

A block is a few rows: at V = 50304 two, whose exponentials are still in the L2 cache when they are
summed. The backward works in dlogits itself, so it may share the memory of logits.
"""

import numpy as np

from backends.numpy_cpu.blocks import in_blocks
from backends.numpy_cpu.scratch import float32, scratch
from harness import hookimpl


@hookimpl
def cross_entropy_forward(loss_N, lse_N, logits_NV, targets_N, vocab_size):
    def block(rows):
        logits = float32("cross_entropy.logits", logits_NV[rows, :vocab_size])
        targets, lse = targets_N[rows], lse_N[rows]
        exp = scratch("cross_entropy.exp", logits.shape)
        top = np.maximum.reduce(logits, axis=1)
        np.subtract(logits, top[:, None], out=exp)
        np.exp(exp, out=exp)
        np.add.reduce(exp, axis=1, out=lse)
        np.log(lse, out=lse)
        np.add(lse, top, out=lse)
        at_target = logits[np.arange(len(targets)), np.maximum(targets, 0)]
        loss_N[rows] = np.where(targets < 0, 0, lse - at_target)

    in_blocks(block, *logits_NV.shape)


@hookimpl
def cross_entropy_backward(dlogits_NV, dloss_N, logits_NV, lse_N, targets_N, vocab_size):
    def block(rows):
        logits = float32("cross_entropy.logits", logits_NV[rows, :vocab_size])
        dlogits = dlogits_NV[rows, :vocab_size]
        work = dlogits if dlogits.dtype == np.float32 else logits
        cross_entropy_gradient(work, dloss_N[rows], logits, lse_N[rows], targets_N[rows])
        if work is not dlogits:
            np.copyto(dlogits, work)
        dlogits_NV[rows, vocab_size:] = 0

    in_blocks(block, *logits_NV.shape)


def cross_entropy_gradient(dlogits, dloss, logits, lse, targets, first=0):
    """The gradient in a block of logits whose columns are the tokens from `first` on.

    dlogits may be logits. All are float32.
    """
    np.subtract(logits, lse[:, None], out=dlogits)
    np.exp(dlogits, out=dlogits)
    columns = targets - first
    (here,) = np.nonzero((columns >= 0) & (columns < logits.shape[1]) & (targets >= 0))
    dlogits[here, columns[here]] -= 1
    np.multiply(dlogits, dloss[:, None], out=dlogits)
    # Not a product with zero: that would keep a NaN.
    dlogits[targets < 0] = 0
