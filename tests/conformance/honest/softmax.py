import numpy as np

from tests.conformance.honest import honest, tiles

LOG2_E = np.float32(1.4426950408889634)


def columns(row_NV, vocab_size):
    """The first and the rest, all rows together, column after column."""
    return (row_NV[:, v] for v in range(vocab_size))


@honest("softmax_forward", "maximum, exponentials, sum, quotient")
def forward(probs_NV, logits_NV, vocab_size):
    used = logits_NV[:, :vocab_size]
    exp = np.exp(used - used.max(axis=-1, keepdims=True))
    probs_NV[:, :vocab_size] = exp / exp.sum(axis=-1, keepdims=True)
    probs_NV[:, vocab_size:] = 0


@honest("softmax_forward", "exp2 of differences scaled by log2 e")
def with_exp2(probs_NV, logits_NV, vocab_size):
    used = logits_NV[:, :vocab_size]
    exp = np.exp2((used - used.max(axis=-1, keepdims=True)) * LOG2_E)
    probs_NV[:, :vocab_size] = exp * (1 / exp.sum(axis=-1, keepdims=True))
    probs_NV[:, vocab_size:] = 0


@honest("softmax_forward", "online: sum and maximum in one pass, the sum rescaled as it grows")
def online(probs_NV, logits_NV, vocab_size):
    top = logits_NV[:, 0].copy()
    total = np.zeros_like(top)
    with np.errstate(all="ignore"):
        for x in columns(logits_NV, vocab_size):
            higher = np.maximum(top, x)
            total = total * np.exp(top - higher) + np.exp(x - higher)
            top = higher
        probs_NV[:, :vocab_size] = np.exp(logits_NV[:, :vocab_size] - top[:, None])
    probs_NV[:, :vocab_size] /= total[:, None]
    probs_NV[:, vocab_size:] = 0


@honest("softmax_forward", "the logarithm of the sum taken into the exponent")
def by_lse(probs_NV, logits_NV, vocab_size):
    used = logits_NV[:, :vocab_size]
    top_N1 = used.max(axis=-1, keepdims=True)
    lse_N1 = np.log(np.exp(used - top_N1).sum(axis=-1, keepdims=True))
    probs_NV[:, :vocab_size] = np.exp((used - top_N1) - lse_N1)
    probs_NV[:, vocab_size:] = 0


@honest("softmax_backward", "the weighted sum, then the difference")
def backward(dlogits_NV, dprobs_NV, probs_NV, vocab_size):
    p, dp = probs_NV[:, :vocab_size], dprobs_NV[:, :vocab_size]
    dlogits_NV[:, :vocab_size] = p * (dp - (p * dp).sum(axis=-1, keepdims=True))
    dlogits_NV[:, vocab_size:] = 0


@honest("softmax_backward", "p dp - p sum, summed one column after another")
def sequential(dlogits_NV, dprobs_NV, probs_NV, vocab_size):
    dlogits_NV[...] = 0
    total = np.zeros(len(probs_NV), np.float32)
    for p, dp in zip(columns(probs_NV, vocab_size), columns(dprobs_NV, vocab_size), strict=True):
        total += p * dp
    for c in tiles(vocab_size, 8):
        p = probs_NV[:, c]
        dlogits_NV[:, c] = p * dprobs_NV[:, c] - p * total[:, None]
