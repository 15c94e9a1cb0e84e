"""out = x · weightᵀ + bias

    dx = dout · weight        dweight = doutᵀ · x        dbias = Σ_n dout

Each thread makes one tile of the result with a BLAS of one thread. The bias stands in the result before
the product is added to it, and a gradient is added to where it lies: no temporary, no second pass.
"""

from numba import prange

from backends.numba_cpu._kernel import kernel
from backends.numba_cpu._products import (
    ADD,
    REPLACE,
    bands_room,
    multiply_nn,
    multiply_nt,
    multiply_tn,
)
from backends.numba_cpu._runs import add_run, copy_run, fill_run
from backends.numba_cpu._scratch import takes
from backends.numba_cpu._threads import threads
from backends.numba_cpu._tiles import coarse_part, part
from harness import hookimpl


@hookimpl
def matmul_forward(out_NO, x_NI, weight_OI, bias_O):
    if bias_O is None:
        multiply_nt(out_NO, x_NI, weight_OI)
        return
    fill_rows(out_NO, bias_O, threads())
    multiply_nt(out_NO, x_NI, weight_OI, ADD)


@hookimpl
def matmul_backward(dx_NI, dweight_OI, dbias_O, dout_NO, x_NI, weight_OI, accumulate):
    beta = ADD if accumulate else REPLACE
    if dx_NI is not None:
        multiply_nn(dx_NI, dout_NO, weight_OI)
    if dweight_OI is not None:
        multiply_tn(dweight_OI, dout_NO, x_NI, beta)
    if dbias_O is not None:
        sum_rows(dbias_O, dout_NO, beta, threads())


@kernel
def fill_rows(out_NC, row_C, tasks):
    """Every row of out is this one."""
    N = len(out_NC)
    for task in prange(tasks):
        start, stop = part(N, tasks, task)
        for n in range(start, stop):
            copy_run(out_NC[n], row_C)


@kernel
def sum_rows(out_C, x_NC, beta, tasks):
    """out = Σ_n x[n] + beta out. Each thread sums some columns, down all rows."""
    N, C = x_NC.shape
    for task in prange(tasks):
        left, right = coarse_part(C, tasks, task)
        if beta == REPLACE:
            fill_run(out_C[left:right], REPLACE)
        for n in range(N):
            add_run(out_C[left:right], x_NC[n, left:right])


@takes("matmul_forward", "matmul_backward")
def _scratch(dims, precision, most):
    if precision != "bf16":
        return 0
    N, I, O = (dims[letter] for letter in "NIO")
    return max(bands_room(N, I, O), bands_room(N, O, I), bands_room(O, N, I))
