import numpy as np

from tests.conformance.honest import honest

LOG2_E = np.float32(1.4426950408889634)
LN_2 = np.float32(0.6931471805599453)


def fill_loss(loss_N, lse_N, logits_NV, targets_N):
    rows = np.arange(len(targets_N))
    picked_N = logits_NV[rows, np.maximum(targets_N, 0)]
    loss_N[...] = np.where(targets_N < 0, 0, lse_N - picked_N)


@honest("cross_entropy_forward", "maximum, exponentials, sum, logarithm")
def forward(loss_N, lse_N, logits_NV, targets_N, vocab_size):
    used = logits_NV[:, :vocab_size]
    top_N = used.max(axis=-1)
    lse_N[...] = np.log(np.exp(used - top_N[:, None]).sum(axis=-1)) + top_N
    fill_loss(loss_N, lse_N, logits_NV, targets_N)


@honest("cross_entropy_forward", "exp2 and log2")
def with_exp2(loss_N, lse_N, logits_NV, targets_N, vocab_size):
    used = logits_NV[:, :vocab_size]
    top_N = used.max(axis=-1)
    total_N = np.exp2((used - top_N[:, None]) * LOG2_E).sum(axis=-1)
    lse_N[...] = np.log2(total_N) * LN_2 + top_N
    fill_loss(loss_N, lse_N, logits_NV, targets_N)


@honest("cross_entropy_forward", "online: one pass, the sum rescaled where the maximum grows")
def online(loss_N, lse_N, logits_NV, targets_N, vocab_size):
    top = logits_NV[:, 0].copy()
    total = np.zeros_like(top)
    with np.errstate(all="ignore"):
        for v in range(vocab_size):
            higher = np.maximum(top, logits_NV[:, v])
            total = total * np.exp(top - higher) + np.exp(logits_NV[:, v] - higher)
            top = higher
        lse_N[...] = top + np.log(total)
    fill_loss(loss_N, lse_N, logits_NV, targets_N)


@honest("cross_entropy_backward", "probabilities, less one at the target, times dloss")
def backward(dlogits_NV, dloss_N, logits_NV, lse_N, targets_N, vocab_size):
    kept = np.flatnonzero(targets_N >= 0)
    dlogits_NV[:, :vocab_size] = np.exp(logits_NV[:, :vocab_size] - lse_N[:, None])
    dlogits_NV[kept, targets_N[kept]] -= 1
    dlogits_NV *= dloss_N[:, None]
    # Overwritten, not multiplied by 0: what is ignored is exactly 0, be it NaN or not.
    dlogits_NV[targets_N < 0] = 0
    dlogits_NV[:, vocab_size:] = 0


@honest("cross_entropy_backward", "row after row; dloss times p, less dloss at the target")
def row_by_row(dlogits_NV, dloss_N, logits_NV, lse_N, targets_N, vocab_size):
    for n, target in enumerate(targets_N):
        if target < 0:
            dlogits_NV[n] = 0
            continue
        dlogits_NV[n, :vocab_size] = dloss_N[n] * np.exp(logits_NV[n, :vocab_size] - lse_N[n])
        dlogits_NV[n, vocab_size:] = 0
        dlogits_NV[n, target] -= dloss_N[n]
