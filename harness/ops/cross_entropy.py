"""Cross-entropy of each row's logits against its target, in nats.

    lse[n] = log sum_{v < vocab_size} exp(logits[n,v])        loss[n] = lse[n] - logits[n, target[n]]
    dlogits[n,v] = dloss[n] (exp(logits[n,v] - lse[n]) - [v = target[n]])

A target of -1 is ignored: its loss and its gradients are exactly 0. Padded columns take no part, and
their gradient is 0. The mean over rows is not taken here: dloss carries the 1/N.
Source: llm.c, crossentropy_forward and crossentropy_softmax_backward.
"""

import numpy as np

from harness.contract import Ids, In, Magnitude, Out, Stat, hookspec
from harness.ops.softmax import padded_from

SHAPES = ({"N": 256, "V": 50304},)
MAY_ALIAS = {"cross_entropy_backward": (("dlogits_NV", "logits_NV"),)}


@hookspec
def cross_entropy_forward(
    loss_N: Stat, lse_N: Stat, logits_NV: In, targets_N: Ids, vocab_size: int
) -> None:
    """Fill loss_N and lse_N (both float32, in nats).

    targets_N: in 0 .. vocab_size-1, or -1 for a row to be ignored (loss 0; lse_N is filled anyway).
    """


@hookspec
def cross_entropy_backward(
    dlogits_NV: Out,
    dloss_N: Stat,
    logits_NV: In,
    lse_N: Stat,
    targets_N: Ids,
    vocab_size: int,
) -> None:
    """Fill dlogits_NV, which may share the memory of logits_NV.

    Ignored rows and padded columns get exactly 0.
    """


def example_settings(dims):
    return {"vocab_size": padded_from(dims["V"])}


def example_inputs(rng, dims, settings):
    targets_N = rng.integers(0, settings["vocab_size"], size=dims["N"])
    targets_N[rng.random(dims["N"]) < 0.1] = -1
    return {"targets_N": targets_N}


def reference_forward(logits_NV, targets_N, vocab_size):
    used = logits_NV[:, :vocab_size]
    top_N1 = used.max(axis=-1, keepdims=True)
    lse_N = np.log(np.exp(used - top_N1).sum(axis=-1)) + top_N1[:, 0]
    rows = np.arange(len(targets_N))
    loss_N = np.where(targets_N < 0, 0.0, lse_N - used[rows, np.maximum(targets_N, 0)])
    return loss_N, lse_N


def reference_backward(dloss_N, logits_NV, lse_N, targets_N, vocab_size):
    dlogits_NV = np.zeros_like(logits_NV)
    dlogits_NV[:, :vocab_size] = np.exp(logits_NV[:, :vocab_size] - lse_N[:, None])
    kept = np.flatnonzero(targets_N >= 0)
    dlogits_NV[kept, targets_N[kept]] -= 1
    # Not a product with 0: an ignored row may hold NaN, and its gradient is 0 all the same.
    return (np.where(targets_N[:, None] < 0, 0.0, dlogits_NV * dloss_N[:, None]),)


def magnitude_forward(logits_NV, targets_N, vocab_size):
    # 2 and not 1: an online sum of nearly equal terms rounds each of them the same way, twice.
    S = 2 + 2 * np.abs(logits_NV[:, :vocab_size]).max(axis=-1)
    return Magnitude(np.where(targets_N < 0, 0, S), vocab_size), Magnitude(S, vocab_size)


def magnitude_backward(dloss_N, logits_NV, lse_N, targets_N, vocab_size):
    S = np.zeros_like(logits_NV)
    used = logits_NV[:, :vocab_size]
    amplified_NV = 1 + np.abs(used) + np.abs(lse_N)[:, None]
    S[:, :vocab_size] = np.exp(used - lse_N[:, None]) * amplified_NV
    kept = np.flatnonzero(targets_N >= 0)
    S[kept, targets_N[kept]] += 1
    S = np.where(targets_N[:, None] < 0, 0.0, S * np.abs(dloss_N)[:, None])
    return (Magnitude(S, 1),)


def flops_forward(N, V):
    return 4 * N * V


def flops_backward(N, V):
    return 4 * N * V
