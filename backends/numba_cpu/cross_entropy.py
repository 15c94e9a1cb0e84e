"""lse[n] = log Σ_{v < vocab_size} exp(logits[n,v])        loss[n] = lse[n] - logits[n, target[n]]

    dlogits[n,v] = dloss[n] (exp(logits[n,v] - lse[n]) - [v = target[n]])

Threads share the rows. The forward reads each logit once: maximum and sum run along the row in pieces
(`_log_sum.py`). The gradient goes through a small buffer, since dlogits may share the memory of logits,
and a loop from a buffer to itself under another name is not vectorised.
"""

import numpy as np
from numba import prange

from backends.numba_cpu._exp import exp
from backends.numba_cpu._kernel import helper, kernel
from backends.numba_cpu._log_sum import LOWEST, PIECE, ZERO, take_in, weigh
from backends.numba_cpu._narrow import narrow, wide
from backends.numba_cpu._scratch import room, scratch, takes
from backends.numba_cpu._threads import threads
from backends.numba_cpu._tiles import part
from harness import hookimpl

ONE = np.float32(1)


@hookimpl
def cross_entropy_forward(loss_N, lse_N, logits_NV, targets_N, vocab_size):
    _forward(loss_N, lse_N, logits_NV, targets_N, vocab_size, threads())


@hookimpl
def cross_entropy_backward(dlogits_NV, dloss_N, logits_NV, lse_N, targets_N, vocab_size):
    (pieces_TP,) = scratch((threads(), PIECE))
    _backward(dlogits_NV, dloss_N, logits_NV, lse_N, targets_N, vocab_size, pieces_TP, threads())


@kernel
def _forward(loss_N, lse_N, logits_NV, targets_N, vocab_size, tasks):
    for task in prange(tasks):
        start, stop = part(loss_N.size, tasks, task)
        for n in range(start, stop):
            top, total = take_in(logits_NV[n, :vocab_size], LOWEST, ZERO)
            lse = np.log(total) + top
            lse_N[n] = lse
            target = targets_N[n]
            loss_N[n] = lse - wide(logits_NV[n, target]) if target >= 0 else ZERO


@kernel
def _backward(dlogits_NV, dloss_N, logits_NV, lse_N, targets_N, vocab_size, pieces_TP, tasks):
    for task in prange(tasks):
        start, stop = part(dloss_N.size, tasks, task)
        for n in range(start, stop):
            target, dloss, lse = targets_N[n], dloss_N[n], lse_N[n]
            if target < 0:
                # Not a product with 0, which would keep a NaN.
                _clear(dlogits_NV[n])
                continue
            at_target = wide(logits_NV[n, target])
            _weigh_row(
                dlogits_NV[n, :vocab_size],
                logits_NV[n, :vocab_size],
                pieces_TP[task],
                lse,
                dloss,
            )
            dlogits_NV[n, target] = narrow(dlogits_NV, dloss * (exp(at_target - lse) - ONE))
            _clear(dlogits_NV[n, vocab_size:])


@helper
def _weigh_row(out_V, x_V, piece_P, lse, factor):
    for first in range(0, x_V.size, PIECE):
        stop = min(first + PIECE, x_V.size)
        x_P, out_P, here_P = x_V[first:stop], out_V[first:stop], piece_P[: stop - first]
        for p in range(here_P.size):
            here_P[p] = wide(x_P[p])
        weigh(here_P, lse, factor)
        for p in range(here_P.size):
            out_P[p] = narrow(out_P, here_P[p])


@helper
def _clear(x_V):
    for v in range(x_V.size):
        x_V[v] = narrow(x_V, ZERO)


@takes("cross_entropy_backward")
def _scratch(dims, precision, most):
    return room((threads(), PIECE))
