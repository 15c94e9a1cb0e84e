import numpy as np

from tests.conformance.honest import cross_entropy, honest, matmul, tiles


def make_logits(x_NC, weight_VC):
    return x_NC @ weight_VC.T


@honest("matmul_cross_entropy_forward", "all logits at once")
def forward(loss_N, lse_N, x_NC, weight_VC, targets_N, vocab_size):
    logits_NV = make_logits(x_NC, weight_VC)
    cross_entropy.forward(loss_N, lse_N, logits_NV, targets_N, vocab_size)


@honest("matmul_cross_entropy_forward", "chunks of 4 rows; online, and without the padded columns")
def by_chunks(loss_N, lse_N, x_NC, weight_VC, targets_N, vocab_size):
    for n in tiles(len(x_NC), 4):
        logits = np.einsum("nc,vc->nv", x_NC[n], weight_VC[:vocab_size])
        cross_entropy.online(loss_N[n], lse_N[n], logits, targets_N[n], vocab_size)


def start(dweight_VC, accumulate):
    if dweight_VC is not None and not accumulate:
        dweight_VC[...] = 0


@honest("matmul_cross_entropy_backward", "all logits again, then matmul's backward")
def backward(
    dx_NC,
    dweight_VC,
    dloss_N,
    x_NC,
    weight_VC,
    lse_N,
    targets_N,
    vocab_size,
    accumulate,
):
    logits_NV = make_logits(x_NC, weight_VC)
    cross_entropy.backward(logits_NV, dloss_N, logits_NV, lse_N, targets_N, vocab_size)
    matmul.backward(dx_NC, dweight_VC, None, logits_NV, x_NC, weight_VC, accumulate)


@honest("matmul_cross_entropy_backward", "chunks of 4 rows, dweight added up")
def by_chunks_backward(
    dx_NC,
    dweight_VC,
    dloss_N,
    x_NC,
    weight_VC,
    lse_N,
    targets_N,
    vocab_size,
    accumulate,
):
    start(dweight_VC, accumulate)
    for n in tiles(len(x_NC), 4):
        logits = make_logits(x_NC[n], weight_VC)
        cross_entropy.row_by_row(logits, dloss_N[n], logits, lse_N[n], targets_N[n], vocab_size)
        dx = None if dx_NC is None else dx_NC[n]
        matmul.backward(dx, dweight_VC, None, logits, x_NC[n], weight_VC, True)
