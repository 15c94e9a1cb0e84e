"""logits[n,v] = Σ_c x[n,c] weight[v,c]        loss, lse = cross_entropy(logits)

    dlogits[n,v] = dloss[n] (exp(logits[n,v] - lse[n]) - [v = target[n]])
    dx[n,c] = Σ_v dlogits[n,v] weight[v,c]        dweight[v,c] = Σ_n dlogits[n,v] x[n,c]

One row of logits exists at a time; the backward makes each logit again for dx, which is summed by
rows of logits, and once more for dweight, which is summed by columns.
"""

from backends.python_loops._rows import row, start_row, write_row
from backends.python_loops.cross_entropy import log_sum_exp, logit_gradient
from backends.python_loops.matmul import add_scaled, dot
from harness import hookimpl


@hookimpl
def matmul_cross_entropy_forward(loss_N, lse_N, x_NC, weight_VC, targets_N, vocab_size):
    for n, target in enumerate(targets_N):
        x = row(x_NC, n)
        logits = [dot(x, row(weight_VC, v)) for v in range(vocab_size)]
        lse = log_sum_exp(logits)
        loss_N[n] = 0.0 if target < 0 else lse - logits[target]
        lse_N[n] = lse


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
    def dlogit(n, v, x, weight):
        return logit_gradient(dot(x, weight), lse_N[n], dloss_N[n], v == targets_N[n])

    if dx_NC is not None:
        for n, target in enumerate(targets_N):
            x, dx = row(x_NC, n), start_row(dx_NC, False)
            for v in range(0 if target < 0 else vocab_size):
                weight = row(weight_VC, v)
                add_scaled(dx, dlogit(n, v, x, weight), weight)
            write_row(dx_NC, dx, n)
    if dweight_VC is not None:
        kept = [n for n, target in enumerate(targets_N) if target >= 0]
        for v in range(len(weight_VC)):
            weight, dweight = row(weight_VC, v), start_row(dweight_VC, accumulate, v)
            for n in kept if v < vocab_size else ():
                x = row(x_NC, n)
                add_scaled(dweight, dlogit(n, v, x, weight), x)
            write_row(dweight_VC, dweight, v)
