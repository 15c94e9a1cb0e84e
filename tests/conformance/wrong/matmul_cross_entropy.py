import numpy as np

from tests.conformance.honest import matmul_cross_entropy as honest
from tests.conformance.honest import tiles
from tests.conformance.wrong import wrong


@wrong("matmul_cross_entropy_forward", "padded columns take part")
def padded_columns_included(loss_N, lse_N, x_NC, weight_VC, targets_N, vocab_size):
    honest.forward(loss_N, lse_N, x_NC, weight_VC, targets_N, len(weight_VC))


@wrong(
    "matmul_cross_entropy_forward",
    "chunks of 4 rows; the last partial one is not written",
    subtle=True,
)
def last_chunk_dropped(loss_N, lse_N, x_NC, weight_VC, targets_N, vocab_size):
    n = slice(0, len(x_NC) // 4 * 4)
    if n.stop:
        honest.forward(loss_N[n], lse_N[n], x_NC[n], weight_VC, targets_N[n], vocab_size)


@wrong("matmul_cross_entropy_forward", "a target of -1 picks the last column", subtle=True)
def ignored_picks_last_column(loss_N, lse_N, x_NC, weight_VC, targets_N, vocab_size):
    honest.forward(loss_N, lse_N, x_NC, weight_VC, targets_N % vocab_size, vocab_size)


@wrong(
    "matmul_cross_entropy_backward", "each chunk's dweight overwrites the one before", subtle=False
)
def last_chunk_only(
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
    for n in tiles(len(x_NC), 4):
        dx = None if dx_NC is None else dx_NC[n]
        honest.backward(
            dx,
            dweight_VC,
            dloss_N[n],
            x_NC[n],
            weight_VC,
            lse_N[n],
            targets_N[n],
            vocab_size,
            accumulate,
        )


@wrong(
    "matmul_cross_entropy_backward", "padding rows of dweight are left as they were", subtle=True
)
def padding_rows_not_written(
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
    used = slice(0, vocab_size)
    dweight = None if dweight_VC is None else dweight_VC[used]
    honest.backward(
        dx_NC,
        dweight,
        dloss_N,
        x_NC,
        weight_VC[used],
        lse_N,
        targets_N,
        vocab_size,
        accumulate,
    )


@wrong(
    "matmul_cross_entropy_backward",
    "padding rows of dweight cleared though accumulating",
    subtle=True,
)
def padding_rows_cleared(
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
    honest.backward(
        dx_NC, dweight_VC, dloss_N, x_NC, weight_VC, lse_N, targets_N, vocab_size, accumulate
    )
    if dweight_VC is not None:
        dweight_VC[vocab_size:] = 0


@wrong("matmul_cross_entropy_backward", "dloss is taken to be 1 / N")
def dloss_ignored(
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
    mean = np.full_like(dloss_N, 1 / len(dloss_N))
    honest.backward(
        dx_NC, dweight_VC, mean, x_NC, weight_VC, lse_N, targets_N, vocab_size, accumulate
    )


@wrong("matmul_cross_entropy_backward", "always added to: relies on cleared gradients", subtle=True)
def always_accumulates(
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
    honest.backward(dx_NC, dweight_VC, dloss_N, x_NC, weight_VC, lse_N, targets_N, vocab_size, True)


@wrong(
    "matmul_cross_entropy_backward",
    "ignored rows counted as targets of the last column",
    subtle=True,
)
def ignored_rows_counted(
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
    counted = targets_N % vocab_size
    honest.backward(
        dx_NC, dweight_VC, dloss_N, x_NC, weight_VC, lse_N, counted, vocab_size, accumulate
    )


@wrong("matmul_cross_entropy_backward", "dx is not written where dweight is None", subtle=True)
def returns_early(
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
    if dweight_VC is None:
        return
    honest.backward(
        dx_NC, dweight_VC, dloss_N, x_NC, weight_VC, lse_N, targets_N, vocab_size, accumulate
    )
