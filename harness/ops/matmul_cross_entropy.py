"""The output head and its loss in one call, which never holds all the logits.

    logits = x · weightᵀ        loss, lse = cross_entropy(logits, targets)
    dlogits = cross_entropy_backward(dloss)        dx, dweight = matmul_backward(dlogits)

Fused: the logits are made, used and dropped in chunks of rows; the backward makes them again from
`lse`. At N rows and V columns that saves N*V numbers of memory for N*V*C more multiplications.
Source: matmul.py and cross_entropy.py; Wijmans et al. 2024, arXiv:2411.09009.
"""

import numpy as np

from harness.contract import Acc, Ids, In, Magnitude, Out, Param, Stat, hookspec
from harness.ops import cross_entropy, matmul

SHAPES = ({"N": 256, "C": 768, "V": 50304},)
PARTS = ("matmul", "cross_entropy")


@hookspec
def matmul_cross_entropy_forward(
    loss_N: Stat, lse_N: Stat, x_NC: In, weight_VC: Param, targets_N: Ids, vocab_size: int
) -> None:
    """Fill loss_N and lse_N (float32, in nats) of the logits x_NC · weight_VCᵀ.

    targets_N: in 0 .. vocab_size-1, or -1 for a row to be ignored (loss 0).
    """


@hookspec
def matmul_cross_entropy_backward(
    dx_NC: Out | None,
    dweight_VC: Acc | None,
    dloss_N: Stat,
    x_NC: In,
    weight_VC: Param,
    lse_N: Stat,
    targets_N: Ids,
    vocab_size: int,
    accumulate: bool,
) -> None:
    """Fill dx_NC; overwrite dweight_VC, or add to it if `accumulate`. Padding rows of it get 0."""


example_settings = cross_entropy.example_settings
example_inputs = cross_entropy.example_inputs


def decompose(p, x_NC, weight_VC, targets_N, vocab_size):
    return p.cross_entropy(p.matmul(x_NC, weight_VC, None), targets_N, vocab_size)


def reference_forward(x_NC, weight_VC, targets_N, vocab_size):
    (logits_NV,) = matmul.reference_forward(x_NC, weight_VC, None)
    return cross_entropy.reference_forward(logits_NV, targets_N, vocab_size)


def reference_backward(dloss_N, x_NC, weight_VC, lse_N, targets_N, vocab_size):
    (logits_NV,) = matmul.reference_forward(x_NC, weight_VC, None)
    (dlogits_NV,) = cross_entropy.reference_backward(
        dloss_N, logits_NV, lse_N, targets_N, vocab_size
    )
    return matmul.reference_backward(dlogits_NV, x_NC, weight_VC)[:2]


def magnitude_forward(x_NC, weight_VC, targets_N, vocab_size):
    # The largest magnitude of a logit stands in for the logit itself: its dot product was rounded.
    (logits,) = matmul.magnitude_forward(x_NC, weight_VC, None)
    loss, lse = cross_entropy.magnitude_forward(logits.S, targets_N, vocab_size)
    n = vocab_size + logits.n
    return Magnitude(loss.S, n), Magnitude(lse.S, n)


def magnitude_backward(dloss_N, x_NC, weight_VC, lse_N, targets_N, vocab_size):
    (logits_NV,) = matmul.reference_forward(x_NC, weight_VC, None)
    (size,) = matmul.magnitude_forward(x_NC, weight_VC, None)
    (dlogits,) = cross_entropy.magnitude_backward(dloss_N, logits_NV, lse_N, targets_N, vocab_size)
    probs_NV = np.zeros_like(logits_NV)
    probs_NV[:, :vocab_size] = np.exp(logits_NV[:, :vocab_size] - lse_N[:, None])
    dloss_N1 = np.where(targets_N < 0, 0, np.abs(dloss_N))[:, None]
    S_dlogits = dlogits.S + dloss_N1 * probs_NV * size.S
    dx, dweight, _ = matmul.magnitude_backward(S_dlogits, x_NC, weight_VC)
    return Magnitude(dx.S, dx.n + size.n), Magnitude(dweight.S, dweight.n + size.n)


def flops_forward(N, C, V):
    return matmul.flops_forward(N, C, V) + cross_entropy.flops_forward(N, V)


def flops_backward(N, C, V):
    return 3 * matmul.flops_forward(N, C, V) + cross_entropy.flops_backward(N, V)
