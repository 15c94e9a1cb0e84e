"""param, m, v = adamw(...)        low = round(param)

The loop of `adamw.py` over some thousands of numbers, then the rounding of the same while they are in
the cache: memory sees one pass of 30 bytes a parameter.
"""

from numba import prange

from backends.numba_cpu._kernel import kernel
from backends.numba_cpu._random import key_of, random_run
from backends.numba_cpu._runs import copy_run
from backends.numba_cpu._threads import threads
from backends.numba_cpu._tiles import coarse_part
from backends.numba_cpu.adamw import factors_of, update_run
from backends.numba_cpu.cast import convert
from backends.numba_cpu.stochastic_cast import stochastic_cast
from harness import hookimpl

PIECE = 4096
"""Numbers updated before they are rounded: 72 KiB of all five buffers, within L2."""


@hookimpl
def adamw_master(
    param_P,
    low_P,
    m_P,
    v_P,
    grad_P,
    lr_1,
    correction_2,
    clip_1,
    key_2,
    beta1,
    beta2,
    eps,
    weight_decay,
    first,
):
    factors = factors_of(lr_1, correction_2, clip_1, beta1, beta2, eps, weight_decay)
    if factors is None and key_2 is None:
        convert(low_P, param_P, threads())
    elif factors is None:
        stochastic_cast(low_P, param_P, key_2, first)
    elif key_2 is None:
        _to_nearest(param_P, low_P, m_P, v_P, grad_P, factors, threads())
    else:
        _at_random(param_P, low_P, m_P, v_P, grad_P, factors, key_of(key_2), first, threads())


@kernel
def _to_nearest(param_P, low_P, m_P, v_P, grad_P, factors, tasks):
    for task in prange(tasks):
        begin, end = coarse_part(param_P.size, tasks, task)
        for start in range(begin, end, PIECE):
            piece = slice(start, min(start + PIECE, end))
            update_run(param_P[piece], m_P[piece], v_P[piece], grad_P[piece], factors)
            copy_run(low_P[piece], param_P[piece])


@kernel
def _at_random(param_P, low_P, m_P, v_P, grad_P, factors, key, first, tasks):
    for task in prange(tasks):
        begin, end = coarse_part(param_P.size, tasks, task)
        for start in range(begin, end, PIECE):
            piece = slice(start, min(start + PIECE, end))
            update_run(param_P[piece], m_P[piece], v_P[piece], grad_P[piece], factors)
            random_run(low_P[piece], param_P[piece], key, first + start)
