import numpy as np

from tests.conformance.honest import softmax
from tests.conformance.wrong import wrong
from tests.conformance.wrong.rounding import as_half


def finish(probs_NV, used, top_N1, vocab_size, extra=0.0):
    with np.errstate(all="ignore"):
        exp = np.exp(used - top_N1)
        probs_NV[:, :vocab_size] = exp / (exp.sum(axis=-1, keepdims=True) + np.float32(extra))
    probs_NV[:, vocab_size:] = 0


@wrong("softmax_forward", "the maximum is not subtracted", subtle=True)
def maximum_not_subtracted(probs_NV, logits_NV, vocab_size):
    finish(probs_NV, logits_NV[:, :vocab_size], np.float32(0), vocab_size)


@wrong("softmax_forward", "one maximum for the whole array, not for each row", subtle=True)
def maximum_of_all_rows(probs_NV, logits_NV, vocab_size):
    used = logits_NV[:, :vocab_size]
    finish(probs_NV, used, used.max(), vocab_size)


@wrong("softmax_forward", "the running maximum begins at 0", subtle=True)
def maximum_from_zero(probs_NV, logits_NV, vocab_size):
    used = logits_NV[:, :vocab_size]
    finish(probs_NV, used, np.maximum(used.max(axis=-1, keepdims=True), 0), vocab_size)


@wrong("softmax_forward", "padded columns take part")
def padded_columns_included(probs_NV, logits_NV, vocab_size):
    softmax.forward(probs_NV, logits_NV, logits_NV.shape[1])


@wrong("softmax_forward", "padded columns take part in the maximum alone", subtle=True)
def padded_columns_in_maximum(probs_NV, logits_NV, vocab_size):
    top_N1 = logits_NV.max(axis=-1, keepdims=True)
    finish(probs_NV, logits_NV[:, :vocab_size], top_N1, vocab_size)


@wrong("softmax_forward", "padded columns are left as they were", subtle=True)
def padded_columns_not_written(probs_NV, logits_NV, vocab_size):
    used = logits_NV[:, :vocab_size]
    softmax.forward(probs_NV[:, :vocab_size], used, vocab_size)


@wrong("softmax_forward", "1e-5 added to the sum to 'be safe'", subtle=True)
def sum_made_safe(probs_NV, logits_NV, vocab_size):
    used = logits_NV[:, :vocab_size]
    finish(probs_NV, used, used.max(axis=-1, keepdims=True), vocab_size, 1e-5)


@wrong("softmax_forward", "the sum kept in float16", subtle=True)
def half_sum(probs_NV, logits_NV, vocab_size):
    softmax.forward(probs_NV, logits_NV, vocab_size)
    used = logits_NV[:, :vocab_size]
    exp = np.exp(used - used.max(axis=-1, keepdims=True))
    total_N1 = exp.sum(axis=-1, keepdims=True)
    probs_NV *= total_N1 / as_half(total_N1)


@wrong("softmax_forward", "columns summed in whole vectors of 8; the tail is left out", subtle=True)
def tail_not_summed(probs_NV, logits_NV, vocab_size):
    used = logits_NV[:, :vocab_size]
    exp = np.exp(used - used.max(axis=-1, keepdims=True))
    whole = vocab_size // 8 * 8 or vocab_size
    probs_NV[:, :vocab_size] = exp / exp[:, :whole].sum(axis=-1, keepdims=True)
    probs_NV[:, vocab_size:] = 0


@wrong("softmax_forward", "exponentials kept in the input", subtle=True, law="untouched")
def exponentials_in_place(probs_NV, logits_NV, vocab_size):
    softmax.forward(probs_NV, logits_NV, vocab_size)
    logits_NV -= logits_NV.max(axis=-1, keepdims=True)


@wrong("softmax_backward", "the sum is missing: p dp alone")
def sum_missing(dlogits_NV, dprobs_NV, probs_NV, vocab_size):
    dlogits_NV[...] = probs_NV * dprobs_NV
    dlogits_NV[:, vocab_size:] = 0


@wrong("softmax_backward", "the mean of dp, not weighted by p")
def mean_not_weighted(dlogits_NV, dprobs_NV, probs_NV, vocab_size):
    p, dp = probs_NV[:, :vocab_size], dprobs_NV[:, :vocab_size]
    dlogits_NV[:, :vocab_size] = p * (dp - dp.mean(axis=-1, keepdims=True))
    dlogits_NV[:, vocab_size:] = 0


@wrong("softmax_backward", "padded columns are left as they were", subtle=True)
def padded_gradients_not_written(dlogits_NV, dprobs_NV, probs_NV, vocab_size):
    used = slice(0, vocab_size)
    softmax.backward(dlogits_NV[:, used], dprobs_NV[:, used], probs_NV[:, used], vocab_size)


@wrong("softmax_backward", "cross-entropy's shortcut: probs - dprobs")
def cross_entropys_shortcut(dlogits_NV, dprobs_NV, probs_NV, vocab_size):
    dlogits_NV[...] = probs_NV - dprobs_NV
    dlogits_NV[:, vocab_size:] = 0


@wrong("softmax_backward", "added to dlogits: relies on zeros there", subtle=True)
def dlogits_added_to(dlogits_NV, dprobs_NV, probs_NV, vocab_size):
    dlogits = np.empty_like(dlogits_NV)
    softmax.backward(dlogits, dprobs_NV, probs_NV, vocab_size)
    dlogits_NV += dlogits
