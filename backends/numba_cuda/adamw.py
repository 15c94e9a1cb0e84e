"""m = beta1 m + (1 - beta1) g        v = beta2 v + (1 - beta2) g²        g = clip · grad

    param = param - lr · (m / c1 / (sqrt(v / c2) + eps) + weight_decay · param)

One pass over the flat arena: four numbers in, three out, 28 bytes a parameter, which memory bounds. A
block takes 1,024 elements at a time, a thread four of them (`_fours.py`). lr, the corrections and clip
stay on the device; a clip that is NaN changes nothing.
"""

from numba import cuda

from backends.numba_cuda._fours import FOUR, first_element, four, launch_fours, put, stride
from backends.numba_cuda._optimizer import factors_of, moments, settings, updated
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
    arrays = (param_P, m_P, v_P, grad_P, lr_1, correction_2, clip_1)
    launch_fours(_adamw, param_P.size, *arrays, *settings(beta1, beta2, eps, weight_decay))


@cuda.jit
def _adamw(
    param_P,
    m_P,
    v_P,
    grad_P,
    lr_1,
    correction_2,
    clip_1,
    beta1,
    rest1,
    beta2,
    rest2,
    eps,
    weight_decay,
):
    clip = clip_1[0]
    if clip != clip:
        return
    step, least, decay = factors_of(lr_1[0], correction_2, eps, weight_decay)
    for p in range(first_element(), param_P.size, stride()):
        param, m, v, grad = four(param_P, p), four(m_P, p), four(v_P, p), four(grad_P, p)
        for k in range(FOUR):
            new_m, new_v = moments(m[k], v[k], clip * grad[k], beta1, rest1, beta2, rest2)
            put(m_P, p, k, new_m)
            put(v_P, p, k, new_v)
            put(param_P, p, k, updated(param[k], new_m, new_v, step, least, decay))
