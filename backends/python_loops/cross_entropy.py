"""lse[n] = log Σ_{v < vocab_size} exp(logits[n,v])        loss[n] = lse[n] - logits[n, target[n]]

    dlogits[n,v] = dloss[n] (exp(logits[n,v] - lse[n]) - [v = target[n]])

A loop over rows; each logit is read before its gradient is written: dlogits may be logits itself.
"""

import math

from backends.python_loops._ieee import exp
from backends.python_loops._rows import row
from harness import hookimpl


@hookimpl
def cross_entropy_forward(loss_N, lse_N, logits_NV, targets_N, vocab_size):
    for n, target in enumerate(targets_N):
        logits = row(logits_NV, n)[:vocab_size]
        lse = log_sum_exp(logits)
        loss_N[n] = 0.0 if target < 0 else lse - logits[target]
        lse_N[n] = lse


@hookimpl
def cross_entropy_backward(dlogits_NV, dloss_N, logits_NV, lse_N, targets_N, vocab_size):
    V = logits_NV.shape[1]
    for n, target in enumerate(targets_N):
        lse, dloss = lse_N[n], dloss_N[n]
        used = 0 if target < 0 else vocab_size  # an ignored row is padding from its beginning
        for v in range(used):
            dlogits_NV[n, v] = logit_gradient(logits_NV[n, v], lse, dloss, v == target)
        for v in range(used, V):
            dlogits_NV[n, v] = 0.0


def log_sum_exp(logits):
    # Subtract the largest first: the exponent is then at most 0, and the sum at least 1.
    largest = max(logits)
    return math.log(sum(math.exp(logit - largest) for logit in logits)) + largest


def logit_gradient(logit, lse, dloss, is_target):
    # lse was rounded, perhaps below the logit, and by more than exp can bear if both are huge.
    return dloss * (exp(logit - lse) - is_target)
