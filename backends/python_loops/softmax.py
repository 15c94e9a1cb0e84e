"""probs[v] = exp(logits[v] - max) / Σ_w exp(logits[w] - max)

    dlogits[v] = probs[v] (dprobs[v] - Σ_w probs[w] dprobs[w])

A loop over rows, each of which ends where the padding begins.
"""

import math

from backends.python_loops._rows import row, write_row
from backends.python_loops.matmul import dot
from harness import hookimpl


@hookimpl
def softmax_forward(probs_NV, logits_NV, vocab_size):
    N, V = logits_NV.shape
    padding = [0.0] * (V - vocab_size)
    for n in range(N):
        logits = row(logits_NV, n)[:vocab_size]
        # Subtract the largest first: the exponent is then at most 0, and the total at least 1.
        largest = max(logits)
        exps = [math.exp(logit - largest) for logit in logits]
        total = sum(exps)
        write_row(probs_NV, [e / total for e in exps] + padding, n)


@hookimpl
def softmax_backward(dlogits_NV, dprobs_NV, probs_NV, vocab_size):
    N, V = probs_NV.shape
    padding = [0.0] * (V - vocab_size)
    for n in range(N):
        probs = row(probs_NV, n)[:vocab_size]
        dprobs = row(dprobs_NV, n)[:vocab_size]
        mean_dprobs = dot(probs, dprobs)
        dlogits = [p * (dp - mean_dprobs) for p, dp in zip(probs, dprobs, strict=True)]
        write_row(dlogits_NV, dlogits + padding, n)
