"""g = clip · grad + weight_decay · param

    velocity = momentum · velocity + g        param = param - lr · velocity

One pass over memory; two kernels, since without a velocity there is less of it to pass over.
"""

import math

import numpy as np
from numba import prange

from backends.numba_cpu._kernel import kernel
from backends.numba_cpu._narrow import narrow, wide
from backends.numba_cpu._threads import threads
from backends.numba_cpu._tiles import coarse_part
from harness import hookimpl


@hookimpl
def sgd(param_P, velocity_P, grad_P, lr_1, clip_1, momentum, weight_decay):
    lr, clip, decay = lr_1[0], clip_1[0], np.float32(weight_decay)
    if math.isnan(clip):
        return
    if velocity_P is None:
        _descend(param_P, grad_P, lr, clip, decay, threads())
        return
    _roll(param_P, velocity_P, grad_P, lr, clip, np.float32(momentum), decay, threads())


@kernel
def _descend(param_P, grad_P, lr, clip, decay, tasks):
    for task in prange(tasks):
        start, stop = coarse_part(param_P.size, tasks, task)
        param_R, grad_R = param_P[start:stop], grad_P[start:stop]
        for r in range(param_R.size):
            param = wide(param_R[r])
            g = clip * wide(grad_R[r]) + decay * param
            param_R[r] = narrow(param_R, param - lr * g)


@kernel
def _roll(param_P, velocity_P, grad_P, lr, clip, momentum, decay, tasks):
    for task in prange(tasks):
        start, stop = coarse_part(param_P.size, tasks, task)
        param_R, grad_R = param_P[start:stop], grad_P[start:stop]
        velocity_R = velocity_P[start:stop]
        for r in range(param_R.size):
            param = wide(param_R[r])
            g = clip * wide(grad_R[r]) + decay * param
            velocity = momentum * wide(velocity_R[r]) + g
            velocity_R[r] = narrow(velocity_R, velocity)
            param_R[r] = narrow(param_R, param - lr * velocity)
