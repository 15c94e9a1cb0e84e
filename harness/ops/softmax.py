"""Softmax over the first `vocab_size` columns of each row; the padded columns get probability 0.

    probs[v] = exp(logits[v] - max) / sum_w exp(logits[w] - max)
    dlogits[v] = probs[v] (dprobs[v] - sum_w probs[w] dprobs[w])

Source: llm.c, softmax_forward (the maximum is subtracted: exp overflows float32 above 88).
"""

import numpy as np

from harness.contract import In, Magnitude, Out, hookspec

SHAPES = ({"N": 64, "V": 50304},)


@hookspec
def softmax_forward(probs_NV: Out, logits_NV: In, vocab_size: int) -> None:
    """Fill probs_NV: rows that sum to 1 over 0 .. vocab_size-1, and zeros from there to V."""


@hookspec
def softmax_backward(dlogits_NV: Out, dprobs_NV: In, probs_NV: In, vocab_size: int) -> None:
    """Fill dlogits_NV; the padded columns get 0, whatever dprobs_NV holds there."""


def example_settings(dims):
    return {"vocab_size": padded_from(dims["V"])}


def padded_from(V):
    """A vocabulary size that is padded to V, leaving a few columns unused where V allows."""
    return max(1, V - max(1, V // 8)) if V > 2 else V


def reference_forward(logits_NV, vocab_size):
    probs_NV = np.zeros_like(logits_NV)
    used = logits_NV[:, :vocab_size]
    exp = np.exp(used - used.max(axis=-1, keepdims=True))
    probs_NV[:, :vocab_size] = exp / exp.sum(axis=-1, keepdims=True)
    return (probs_NV,)


def reference_backward(dprobs_NV, probs_NV, vocab_size):
    dlogits_NV = np.zeros_like(probs_NV)
    p, dp = probs_NV[:, :vocab_size], dprobs_NV[:, :vocab_size]
    dlogits_NV[:, :vocab_size] = p * (dp - (p * dp).sum(axis=-1, keepdims=True))
    return (dlogits_NV,)


def magnitude_forward(logits_NV, vocab_size):
    (probs_NV,) = reference_forward(logits_NV, vocab_size)
    largest_N1 = np.abs(logits_NV[:, :vocab_size]).max(axis=-1, keepdims=True)
    # 2 and not 1: an online sum of nearly equal terms rounds each of them the same way, twice.
    return (Magnitude(probs_NV * (2 + 2 * largest_N1), vocab_size),)


def magnitude_backward(dprobs_NV, probs_NV, vocab_size):
    S = np.zeros_like(probs_NV)
    p, dp = probs_NV[:, :vocab_size], np.abs(dprobs_NV[:, :vocab_size])
    S[:, :vocab_size] = p * (dp + (p * dp).sum(axis=-1, keepdims=True))
    return (Magnitude(S, vocab_size),)


def flops_forward(N, V):
    return 4 * N * V


def flops_backward(N, V):
    return 4 * N * V
