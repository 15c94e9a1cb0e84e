"""logits = x · weightᵀ        loss, lse = cross_entropy(logits)

    dlogits = cross_entropy_backward(dloss)        dx = dlogits · weight        dweight = dlogitsᵀ · x

The logits exist for one chunk of rows at a time, in float32, and become dlogits where they stand. Each
step is a launch of its own, over as many rows as memory allows: products with a block for each tile
(`_products.py`), cross-entropy with a block for each row (`cross_entropy.py`), whose threads share it.
"""

from backends.numba_cuda._chunks import chunks, rows_within
from backends.numba_cuda._products import multiply_nn, multiply_nt, multiply_tn, parts_shape
from backends.numba_cuda._scratch import available, room, scratch, takes
from backends.numba_cuda.cross_entropy import cross_entropy_backward, cross_entropy_forward
from harness import hookimpl

MAX_BYTES = 512 << 20
"""Of logits outside a plan."""


@hookimpl
def matmul_cross_entropy_forward(loss_N, lse_N, x_NC, weight_VC, targets_N, vocab_size):
    N, V = len(x_NC), len(weight_VC)
    count = rows_within(available(MAX_BYTES), N, 4 * V)
    (logits_RV,) = scratch((count, V))
    for first, last in chunks(N, count):
        here, logits = slice(first, last), logits_RV[: last - first]
        multiply_nt(logits, x_NC[here], weight_VC)
        cross_entropy_forward(loss_N[here], lse_N[here], logits, targets_N[here], vocab_size)


@hookimpl
def matmul_cross_entropy_backward(
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
    (N, C), V = x_NC.shape, len(weight_VC)
    fixed = room(parts_shape(V, C, N))
    count = rows_within(available(fixed + MAX_BYTES) - fixed, N, 4 * V)
    parts, logits_RV = scratch(parts_shape(V, C, N), (count, V))
    for first, last in chunks(N, count):
        here, logits, dlogits = slice(first, last), *[logits_RV[: last - first]] * 2
        multiply_nt(logits, x_NC[here], weight_VC)
        stats = dloss_N[here], logits, lse_N[here], targets_N[here]
        cross_entropy_backward(dlogits, *stats, vocab_size)
        if dx_NC is not None:
            multiply_nn(dx_NC[here], dlogits, weight_VC)
        if dweight_VC is not None:
            multiply_tn(dweight_VC, dlogits, x_NC[here], parts, add=accumulate or first > 0)


@takes("matmul_cross_entropy_forward")
def _forward_room(dims, precision, most):
    N, V = dims["N"], dims["V"]
    return room((rows_within(most, N, 4 * V), V))


@takes("matmul_cross_entropy_backward")
def _backward_room(dims, precision, most):
    N, C, V = (dims[letter] for letter in "NCV")
    return room(parts_shape(V, C, N), (rows_within(most, N, 4 * V), V))
