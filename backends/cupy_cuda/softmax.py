"""probs[v] = exp(logits[v] - max) / Σ_w exp(logits[w] - max)

    dlogits[v] = probs[v] (dprobs[v] - Σ_w probs[w] dprobs[w])

A block has a row, or a warp where rows are short. Maximum and sum are found in one pass; the second
finds the row in the L2 cache.
"""

from backends.cupy_cuda._launch import Source, i32, i64, of
from backends.cupy_cuda._rows import over_rows
from harness import hookimpl

_SOURCE = Source("softmax")


@hookimpl
def softmax_forward(probs_NV, logits_NV, vocab_size):
    N, V = logits_NV.shape
    sizes = i64(N), i32(V), i32(vocab_size)
    _SOURCE.launch(
        "softmax_forward", of(logits_NV), *over_rows(logits_NV), probs_NV, logits_NV, *sizes
    )


@hookimpl
def softmax_backward(dlogits_NV, dprobs_NV, probs_NV, vocab_size):
    N, V = probs_NV.shape
    _SOURCE.launch(
        "softmax_backward",
        of(probs_NV),
        *over_rows(probs_NV),
        *(dlogits_NV, dprobs_NV, probs_NV, i64(N), i32(V), i32(vocab_size)),
    )
