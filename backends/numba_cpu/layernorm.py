"""mean = Σ_c x / C        rstd = 1 / sqrt(Σ_c (x - mean)² / C + eps)

    xhat = (x - mean) · rstd        out = xhat · weight + bias

    dxhat   = dout · weight
    dx      = rstd · (dxhat - mean_c(dxhat) - xhat · mean_c(dxhat · xhat))
    dweight = Σ_n dout · xhat       dbias = Σ_n dout

A thread does one row after another: all passes over a row but the first find it in L1. The backward sums
dweight and dbias of a thread's rows on the way; those of all threads (dweight_TC, dbias_TC) are added up
in their order.
"""

import numpy as np
from numba import prange

from backends.numba_cpu._kernel import helper, kernel
from backends.numba_cpu._layernorm import normalise
from backends.numba_cpu._narrow import narrow, wide
from backends.numba_cpu._optional import given
from backends.numba_cpu._scratch import room, scratch, takes
from backends.numba_cpu._threads import threads
from backends.numba_cpu._tiles import part
from harness import hookimpl

ZERO, ONE = np.float32(0), np.float32(1)


@hookimpl
def layernorm_forward(out_NC, mean_N, rstd_N, x_NC, weight_C, bias_C, eps):
    _forward(out_NC, mean_N, rstd_N, x_NC, weight_C, bias_C, np.float32(eps), threads())


@hookimpl
def layernorm_backward(
    dx_NC,
    dweight_C,
    dbias_C,
    dout_NC,
    x_NC,
    weight_C,
    mean_N,
    rstd_N,
    accumulate,
):
    gradients(dx_NC, dweight_C, dbias_C, None, dout_NC, x_NC, weight_C, mean_N, rstd_N, accumulate)


def gradients(
    dx_NC, dweight_C, dbias_C, dsum_NC, dout_NC, x_NC, weight_C, mean_N, rstd_N, accumulate
):
    """The backward, with dsum_NC (or None) added to dx_NC."""
    sums_TC = scratch((threads(), x_NC.shape[1]), (threads(), x_NC.shape[1]))
    _backward(
        given(dx_NC, dout_NC),
        given(dweight_C, mean_N),
        given(dbias_C, mean_N),
        given(dsum_NC, dout_NC),
        dout_NC,
        x_NC,
        weight_C,
        mean_N,
        rstd_N,
        *sums_TC,
        ONE if accumulate else ZERO,
        threads(),
    )


@kernel
def _forward(out_NC, mean_N, rstd_N, x_NC, weight_C, bias_C, eps, tasks):
    N = len(x_NC)
    for task in prange(tasks):
        start, stop = part(N, tasks, task)
        for n in range(start, stop):
            mean_N[n], rstd_N[n] = normalise(out_NC[n], x_NC[n], weight_C, bias_C, eps)


@kernel
def _backward(
    dx_NC,
    dweight_C,
    dbias_C,
    dsum_NC,
    dout_NC,
    x_NC,
    weight_C,
    mean_N,
    rstd_N,
    dweight_TC,
    dbias_TC,
    beta,
    tasks,
):
    N = len(x_NC)
    for task in prange(tasks):
        _clear(dweight_TC[task], dbias_TC[task])
        start, stop = part(N, tasks, task)
        for n in range(start, stop):
            row = dout_NC[n], x_NC[n], weight_C, mean_N[n], rstd_N[n]
            means = _add_gradients(dweight_TC[task], dbias_TC[task], *row)
            if dx_NC.size and dsum_NC.size:
                _gradient_and_sum(dx_NC[n], dsum_NC[n], *row, *means)
            elif dx_NC.size:
                _gradient(dx_NC[n], *row, *means)
    _add_up(dweight_C, dweight_TC, beta)
    _add_up(dbias_C, dbias_TC, beta)


@helper
def _add_gradients(dweight_C, dbias_C, dout_C, x_C, weight_C, mean, rstd):
    """dweight += dout · xhat, dbias += dout. Returns mean_c(dxhat) and mean_c(dxhat · xhat)."""
    C = np.float32(x_C.size)
    total, total_xhat = ZERO, ZERO
    for c in range(x_C.size):
        dout = wide(dout_C[c])
        xhat = (wide(x_C[c]) - mean) * rstd
        dxhat = dout * wide(weight_C[c])
        dweight_C[c] += dout * xhat
        dbias_C[c] += dout
        total += dxhat
        total_xhat += dxhat * xhat
    return total / C, total_xhat / C


@helper
def _gradient(dx_C, dout_C, x_C, weight_C, mean, rstd, mean_dxhat, mean_dxhat_xhat):
    """dx of one row."""
    for c in range(x_C.size):
        dxhat = wide(dout_C[c]) * wide(weight_C[c])
        xhat = (wide(x_C[c]) - mean) * rstd
        dx_C[c] = narrow(dx_C, rstd * (dxhat - mean_dxhat - xhat * mean_dxhat_xhat))


@helper
def _gradient_and_sum(dx_C, dsum_C, dout_C, x_C, weight_C, mean, rstd, mean_dxhat, mean_dxhat_xhat):
    """dx of one row, with dsum added."""
    for c in range(x_C.size):
        dxhat = wide(dout_C[c]) * wide(weight_C[c])
        xhat = (wide(x_C[c]) - mean) * rstd
        dx = rstd * (dxhat - mean_dxhat - xhat * mean_dxhat_xhat)
        dx_C[c] = narrow(dx_C, wide(dsum_C[c]) + dx)


@helper
def _clear(dweight_C, dbias_C):
    for c in range(dweight_C.size):
        dweight_C[c] = ZERO
        dbias_C[c] = ZERO


@helper
def _add_up(out_C, sums_TC, beta):
    """out = Σ_t sums[t] + beta out; nothing where out is left out."""
    if out_C.size and beta == ZERO:
        out_C[:] = ZERO
    for t in range(len(sums_TC)):
        for c in range(out_C.size):
            out_C[c] += sums_TC[t, c]


@takes("layernorm_backward", "residual_layernorm_backward")
def _scratch(dims, precision, most):
    return room(*[(threads(), dims["C"])] * 2)
