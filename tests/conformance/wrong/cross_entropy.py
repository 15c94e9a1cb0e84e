import math

import numpy as np

from tests.conformance.honest import cross_entropy
from tests.conformance.wrong import wrong


@wrong("cross_entropy_forward", "a target of -1 picks the last column", subtle=True)
def ignored_picks_last_column(loss_N, lse_N, logits_NV, targets_N, vocab_size):
    cross_entropy.forward(loss_N, lse_N, logits_NV, targets_N, vocab_size)
    loss_N[...] = lse_N - logits_NV[np.arange(len(targets_N)), targets_N]


@wrong("cross_entropy_forward", "the maximum is not subtracted", subtle=True)
def maximum_not_subtracted(loss_N, lse_N, logits_NV, targets_N, vocab_size):
    with np.errstate(all="ignore"):
        lse_N[...] = np.log(np.exp(logits_NV[:, :vocab_size]).sum(axis=-1))
        cross_entropy.fill_loss(loss_N, lse_N, logits_NV, targets_N)


@wrong("cross_entropy_forward", "padded columns take part")
def padded_columns_included(loss_N, lse_N, logits_NV, targets_N, vocab_size):
    cross_entropy.forward(loss_N, lse_N, logits_NV, targets_N, logits_NV.shape[1])


@wrong("cross_entropy_forward", "lse saved without the maximum")
def lse_without_maximum(loss_N, lse_N, logits_NV, targets_N, vocab_size):
    cross_entropy.forward(loss_N, lse_N, logits_NV, targets_N, vocab_size)
    lse_N -= logits_NV[:, :vocab_size].max(axis=-1)


@wrong("cross_entropy_forward", "lse is not filled in ignored rows", subtle=True)
def ignored_lse_not_written(loss_N, lse_N, logits_NV, targets_N, vocab_size):
    lse = np.empty_like(lse_N)
    cross_entropy.forward(loss_N, lse, logits_NV, targets_N, vocab_size)
    lse_N[targets_N >= 0] = lse[targets_N >= 0]


@wrong("cross_entropy_forward", "loss is not filled in ignored rows", subtle=True)
def ignored_loss_not_written(loss_N, lse_N, logits_NV, targets_N, vocab_size):
    loss = np.empty_like(loss_N)
    cross_entropy.forward(loss, lse_N, logits_NV, targets_N, vocab_size)
    loss_N[targets_N >= 0] = loss[targets_N >= 0]


@wrong("cross_entropy_forward", "the mean is taken here already")
def mean_taken(loss_N, lse_N, logits_NV, targets_N, vocab_size):
    cross_entropy.forward(loss_N, lse_N, logits_NV, targets_N, vocab_size)
    loss_N /= np.float32(len(loss_N))


@wrong("cross_entropy_forward", "in bits")
def in_bits(loss_N, lse_N, logits_NV, targets_N, vocab_size):
    cross_entropy.forward(loss_N, lse_N, logits_NV, targets_N, vocab_size)
    loss_N *= np.float32(1 / math.log(2))


@wrong("cross_entropy_forward", "-log(max(p, 1e-10)): a loss of 23 at most", subtle=True)
def loss_capped(loss_N, lse_N, logits_NV, targets_N, vocab_size):
    cross_entropy.forward(loss_N, lse_N, logits_NV, targets_N, vocab_size)
    np.minimum(loss_N, np.float32(-math.log(1e-10)), out=loss_N)


@wrong("cross_entropy_forward", "the logarithm of a probability that underflows", subtle=True)
def log_of_underflow(loss_N, lse_N, logits_NV, targets_N, vocab_size):
    cross_entropy.forward(loss_N, lse_N, logits_NV, targets_N, vocab_size)
    kept = np.flatnonzero(targets_N >= 0)
    with np.errstate(all="ignore"):
        loss_N[kept] = -np.log(np.exp(logits_NV[kept, targets_N[kept]] - lse_N[kept]))


@wrong(
    "cross_entropy_forward", "logits overwritten by their differences", subtle=True, law="untouched"
)
def logits_overwritten(loss_N, lse_N, logits_NV, targets_N, vocab_size):
    cross_entropy.forward(loss_N, lse_N, logits_NV, targets_N, vocab_size)
    logits_NV -= logits_NV.max(axis=-1, keepdims=True)


@wrong("cross_entropy_forward", "label smoothing of 0.01 left on")
def smoothed(loss_N, lse_N, logits_NV, targets_N, vocab_size):
    cross_entropy.forward(loss_N, lse_N, logits_NV, targets_N, vocab_size)
    uniform_N = lse_N - logits_NV[:, :vocab_size].mean(axis=-1)
    loss_N += np.float32(0.01) * np.where(targets_N < 0, 0, uniform_N - loss_N)


@wrong("cross_entropy_backward", "ignored rows keep their gradient", subtle=True)
def ignored_rows_not_zeroed(dlogits_NV, dloss_N, logits_NV, lse_N, targets_N, vocab_size):
    kept = np.flatnonzero(targets_N >= 0)
    dlogits_NV[:, :vocab_size] = np.exp(logits_NV[:, :vocab_size] - lse_N[:, None])
    dlogits_NV[kept, targets_N[kept]] -= 1
    dlogits_NV *= dloss_N[:, None]
    dlogits_NV[:, vocab_size:] = 0


@wrong("cross_entropy_backward", "ignored rows are skipped, and not written", subtle=True)
def ignored_rows_skipped(dlogits_NV, dloss_N, logits_NV, lse_N, targets_N, vocab_size):
    dlogits = np.empty_like(dlogits_NV)
    cross_entropy.backward(dlogits, dloss_N, logits_NV, lse_N, targets_N, vocab_size)
    dlogits_NV[targets_N >= 0] = dlogits[targets_N >= 0]


@wrong("cross_entropy_backward", "dloss is taken to be 1 / N")
def dloss_ignored(dlogits_NV, dloss_N, logits_NV, lse_N, targets_N, vocab_size):
    mean = np.full_like(dloss_N, 1 / len(dloss_N))
    cross_entropy.backward(dlogits_NV, mean, logits_NV, lse_N, targets_N, vocab_size)


@wrong("cross_entropy_backward", "the first row's dloss for all")
def dloss_of_first_row(dlogits_NV, dloss_N, logits_NV, lse_N, targets_N, vocab_size):
    same = np.full_like(dloss_N, dloss_N[0])
    cross_entropy.backward(dlogits_NV, same, logits_NV, lse_N, targets_N, vocab_size)


@wrong("cross_entropy_backward", "padded columns are left as they were", subtle=True)
def padded_columns_not_written(dlogits_NV, dloss_N, logits_NV, lse_N, targets_N, vocab_size):
    used = slice(0, vocab_size)
    cross_entropy.backward(
        dlogits_NV[:, used], dloss_N, logits_NV[:, used], lse_N, targets_N, vocab_size
    )


@wrong("cross_entropy_backward", "a target of -1 takes its one from the last column", subtle=True)
def ignored_hits_last_column(dlogits_NV, dloss_N, logits_NV, lse_N, targets_N, vocab_size):
    cross_entropy.backward(dlogits_NV, dloss_N, logits_NV, lse_N, targets_N, vocab_size)
    dlogits_NV[targets_N < 0, -1] = -dloss_N[targets_N < 0]


@wrong(
    "cross_entropy_backward",
    "dlogits cleared before logits are read: zeros where they share memory",
    subtle=True,
)
def breaks_when_aliased(dlogits_NV, dloss_N, logits_NV, lse_N, targets_N, vocab_size):
    dlogits_NV[...] = 0
    cross_entropy.backward(dlogits_NV, dloss_N, logits_NV, lse_N, targets_N, vocab_size)


@wrong("cross_entropy_backward", "one subtracted after dloss was multiplied in")
def one_not_scaled(dlogits_NV, dloss_N, logits_NV, lse_N, targets_N, vocab_size):
    cross_entropy.backward(dlogits_NV, dloss_N, logits_NV, lse_N, targets_N, vocab_size)
    kept = np.flatnonzero(targets_N >= 0)
    dlogits_NV[kept, targets_N[kept]] += dloss_N[kept] - 1


@wrong("cross_entropy_backward", "lse made again without the maximum", subtle=True)
def lse_made_again(dlogits_NV, dloss_N, logits_NV, lse_N, targets_N, vocab_size):
    with np.errstate(all="ignore"):
        lse = np.log(np.exp(logits_NV[:, :vocab_size]).sum(axis=-1))
        cross_entropy.backward(dlogits_NV, dloss_N, logits_NV, lse, targets_N, vocab_size)
