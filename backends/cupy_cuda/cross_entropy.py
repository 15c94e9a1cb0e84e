"""lse[n] = log Σ_{v < vocab_size} exp(logits[n,v])        loss[n] = lse[n] - logits[n, target[n]]

    dlogits[n,v] = dloss[n] (exp(logits[n,v] - lse[n]) - [v = target[n]])

A block has a row, or a warp where rows are short, and reads it once: the maximum and the sum are found
together. A row may begin at any address, so a view of a few rows is as good as a whole matrix.
"""

from backends.cupy_cuda._launch import Source, i32, i64, of
from backends.cupy_cuda._rows import over_rows
from harness import hookimpl

_SOURCE = Source("cross_entropy")


@hookimpl
def cross_entropy_forward(loss_N, lse_N, logits_NV, targets_N, vocab_size):
    N, V = logits_NV.shape
    _SOURCE.launch(
        "cross_entropy_forward",
        of(logits_NV),
        *over_rows(logits_NV),
        *(loss_N, lse_N, logits_NV, targets_N, i64(N), i32(V), i32(vocab_size)),
    )


@hookimpl
def cross_entropy_backward(dlogits_NV, dloss_N, logits_NV, lse_N, targets_N, vocab_size):
    N, V = logits_NV.shape
    _SOURCE.launch(
        "cross_entropy_backward",
        of(logits_NV),
        *over_rows(logits_NV),
        *(dlogits_NV, dloss_N, logits_NV, lse_N, targets_N, i64(N), i32(V), i32(vocab_size)),
    )
