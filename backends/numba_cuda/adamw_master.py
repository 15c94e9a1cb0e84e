"""param, m, v as `adamw` makes them        low = round(param)

The step of adamw.py, bit for bit (`_optimizer.py`), and in the same pass the weights that products
read: 30 bytes a parameter, and the masters are not read again to be cast. A block takes 1,024 elements
at a time, a thread four of them (`_fours.py`). Rounded to nearest, or at random by a key as in
stochastic_cast.py; where key_2 is None, that half of the kernel is not compiled.
"""

import numpy as np
from numba import cuda

from backends.numba_cuda._fours import FOUR, TILE, four, launch_fours, put, stride
from backends.numba_cuda._launch import THREADS
from backends.numba_cuda._optimizer import factors_of, moments, settings, updated
from backends.numba_cuda._random import make_words, round_at_random
from harness import hookimpl


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
    arrays = (param_P, low_P, m_P, v_P, grad_P, lr_1, correction_2, clip_1, key_2)
    scalars = (*settings(beta1, beta2, eps, weight_decay), first)
    launch_fours(_adamw_master, param_P.size, *arrays, *scalars)


@cuda.jit
def _adamw_master(
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
    rest1,
    beta2,
    rest2,
    eps,
    weight_decay,
    first,
):
    words = cuda.shared.array(TILE, np.uint32)
    thread = cuda.threadIdx.x
    clip = clip_1[0]
    step, least, decay = factors_of(lr_1[0], correction_2, eps, weight_decay)
    for start in range(cuda.blockIdx.x * TILE, param_P.size, stride()):
        p = start + thread
        param, m, v, grad = four(param_P, p), four(m_P, p), four(v_P, p), four(grad_P, p)
        if key_2 is not None:
            make_words(words, first + start, key_2)
        for k in range(FOUR):
            new = param[k]
            if clip == clip:
                new_m, new_v = moments(m[k], v[k], clip * grad[k], beta1, rest1, beta2, rest2)
                new = updated(new, new_m, new_v, step, least, decay)
                put(m_P, p, k, new_m)
                put(v_P, p, k, new_v)
                put(param_P, p, k, new)
            if key_2 is not None:
                put(low_P, p, k, round_at_random(new, words[thread + k * THREADS]))
            else:
                put(low_P, p, k, new)
