"""sum = a + b        out, mean, rstd = layernorm(sum)

    da = db = dsum + (what layernorm_backward gives for sum)

A row of the sum is made in float32 scratch that stays in L1, written, and normalised as it was before it
was rounded. The backward is layernorm's, which adds dsum to a number as it is made.
"""

import numpy as np
from numba import prange

from backends.numba_cpu._kernel import helper, kernel
from backends.numba_cpu._layernorm import normalise
from backends.numba_cpu._narrow import narrow, wide
from backends.numba_cpu._scratch import room, scratch, takes
from backends.numba_cpu._threads import threads
from backends.numba_cpu._tiles import part
from backends.numba_cpu.layernorm import gradients
from harness import hookimpl


@hookimpl
def residual_layernorm_forward(sum_NC, out_NC, mean_N, rstd_N, a_NC, b_NC, weight_C, bias_C, eps):
    (row_TC,), eps = scratch((threads(), sum_NC.shape[1])), np.float32(eps)
    _forward(sum_NC, out_NC, mean_N, rstd_N, a_NC, b_NC, weight_C, bias_C, row_TC, eps, threads())


@hookimpl
def residual_layernorm_backward(
    da_NC,
    dweight_C,
    dbias_C,
    dsum_NC,
    dout_NC,
    sum_NC,
    weight_C,
    mean_N,
    rstd_N,
    accumulate,
):
    gradients(
        da_NC, dweight_C, dbias_C, dsum_NC, dout_NC, sum_NC, weight_C, mean_N, rstd_N, accumulate
    )


@kernel
def _forward(sum_NC, out_NC, mean_N, rstd_N, a_NC, b_NC, weight_C, bias_C, row_TC, eps, tasks):
    N = len(sum_NC)
    for task in prange(tasks):
        row_C = row_TC[task]
        start, stop = part(N, tasks, task)
        for n in range(start, stop):
            _add(row_C, a_NC[n], b_NC[n])
            # Not in the same loop: the sum may be written over a or b.
            _store(sum_NC[n], row_C)
            mean_N[n], rstd_N[n] = normalise(out_NC[n], row_C, weight_C, bias_C, eps)


@helper
def _add(row_C, a_C, b_C):
    for c in range(row_C.size):
        row_C[c] = wide(a_C[c]) + wide(b_C[c])


@helper
def _store(sum_C, row_C):
    for c in range(row_C.size):
        sum_C[c] = narrow(sum_C, row_C[c])


@takes("residual_layernorm_forward")
def _scratch(dims, precision, most):
    return room((threads(), dims["C"]))
