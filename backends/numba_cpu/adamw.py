"""m = beta1 m + (1 - beta1) g        v = beta2 v + (1 - beta2) g²        g = clip · grad

    param = param - lr · (m / c1 / (sqrt(v / c2) + eps) + weight_decay · param)

One pass over the flat arena: four numbers in, three out, 28 bytes a parameter, which memory bounds. The
factors are formed in Python's floats, which are double, and the corrections moved into them:
m / c1 / (sqrt(v / c2) + eps) = (sqrt(c2) / c1) · m / (sqrt(v) + eps sqrt(c2)).
"""

import math

import numpy as np
from numba import prange

from backends.numba_cpu._kernel import helper, kernel
from backends.numba_cpu._narrow import narrow, wide
from backends.numba_cpu._threads import threads
from backends.numba_cpu._tiles import coarse_part
from harness import hookimpl


@hookimpl
def adamw(
    param_P,
    m_P,
    v_P,
    grad_P,
    lr_1,
    correction_2,
    clip_1,
    beta1,
    beta2,
    eps,
    weight_decay,
):
    factors = factors_of(lr_1, correction_2, clip_1, beta1, beta2, eps, weight_decay)
    if factors is not None:
        _update(param_P, m_P, v_P, grad_P, factors, threads())


def factors_of(lr_1, correction_2, clip_1, beta1, beta2, eps, weight_decay):
    """What the formula multiplies by, in float32; None where clip is NaN, and nothing changes."""
    lr, clip = float(lr_1[0]), float(clip_1[0])
    if math.isnan(clip):
        return None
    c1, root_c2 = float(correction_2[0]), math.sqrt(correction_2[1])
    factors = (
        beta1,
        (1 - beta1) * clip,
        beta2,
        (1 - beta2) * clip * clip,
        eps * root_c2,
        lr * root_c2 / c1,
        1 - lr * weight_decay,
    )
    return tuple(np.float32(factor) for factor in factors)


@kernel
def _update(param_P, m_P, v_P, grad_P, factors, tasks):
    for task in prange(tasks):
        start, stop = coarse_part(param_P.size, tasks, task)
        run = slice(start, stop)
        update_run(param_P[run], m_P[run], v_P[run], grad_P[run], factors)


@helper
def update_run(param_R, m_R, v_R, grad_R, factors):
    """One update of a run."""
    keep_m, take_g, keep_v, take_g2, least, step, keep_param = factors
    for r in range(param_R.size):
        g = wide(grad_R[r])
        m = keep_m * wide(m_R[r]) + take_g * g
        v = keep_v * wide(v_R[r]) + take_g2 * (g * g)
        param = keep_param * wide(param_R[r]) - step * m / (np.sqrt(v) + least)
        m_R[r] = narrow(m_R, m)
        v_R[r] = narrow(v_R, v)
        param_R[r] = narrow(param_R, param)
