"""probs[v] = exp(logits[v] - max) / Σ_w exp(logits[w] - max)

    dlogits[v] = probs[v] (dprobs[v] - Σ_w probs[w] dprobs[w])

A thread does one row after another. The exponentials of a row stay in float32 scratch, 200 KB at GPT-2's
vocabulary, which L2 holds until they are divided.
"""

import numpy as np
from numba import prange

from backends.numba_cpu._exp_near import LOWEST, exp_near
from backends.numba_cpu._kernel import helper, kernel
from backends.numba_cpu._narrow import narrow, wide
from backends.numba_cpu._order import key, value
from backends.numba_cpu._scratch import room, scratch, takes
from backends.numba_cpu._threads import threads
from backends.numba_cpu._tiles import part
from harness import hookimpl

ZERO, ONE = np.float32(0), np.float32(1)


@hookimpl
def softmax_forward(probs_NV, logits_NV, vocab_size):
    (exp_TV,) = scratch((threads(), probs_NV.shape[1]))
    _forward(probs_NV, logits_NV, exp_TV, vocab_size, threads())


@hookimpl
def softmax_backward(dlogits_NV, dprobs_NV, probs_NV, vocab_size):
    _backward(dlogits_NV, dprobs_NV, probs_NV, vocab_size, threads())


@kernel
def _forward(probs_NV, logits_NV, exp_TV, vocab_size, tasks):
    N = len(probs_NV)
    for task in prange(tasks):
        start, stop = part(N, tasks, task)
        for n in range(start, stop):
            _softmax_row(probs_NV[n, :vocab_size], logits_NV[n, :vocab_size], exp_TV[task])
            _clear(probs_NV[n, vocab_size:])


@kernel
def _backward(dlogits_NV, dprobs_NV, probs_NV, vocab_size, tasks):
    N = len(probs_NV)
    for task in prange(tasks):
        start, stop = part(N, tasks, task)
        for n in range(start, stop):
            used = slice(0, vocab_size)
            _gradient_row(dlogits_NV[n, used], dprobs_NV[n, used], probs_NV[n, used])
            _clear(dlogits_NV[n, vocab_size:])


@helper
def _softmax_row(probs_V, logits_V, exp_V):
    V = logits_V.size
    top = key(wide(logits_V[0]))
    for v in range(V):
        top = max(top, key(wide(logits_V[v])))
    # Subtract the row maximum first: exp overflows float32 above 88.
    maximum = value(top)
    total = ZERO
    for v in range(V):
        below = wide(logits_V[v]) - maximum
        e = ZERO if below < LOWEST else exp_near(below)
        exp_V[v] = e
        total += e
    scale = ONE / total
    for v in range(V):
        probs_V[v] = narrow(probs_V, exp_V[v] * scale)


@helper
def _gradient_row(dlogits_V, dprobs_V, probs_V):
    total = ZERO
    for v in range(probs_V.size):
        total += wide(probs_V[v]) * wide(dprobs_V[v])
    for v in range(probs_V.size):
        dlogits_V[v] = narrow(dlogits_V, wide(probs_V[v]) * (wide(dprobs_V[v]) - total))


@helper
def _clear(x_V):
    for v in range(x_V.size):
        x_V[v] = narrow(x_V, ZERO)


@takes("softmax_forward")
def _scratch(dims, precision, most):
    return room((threads(), dims["V"]))
