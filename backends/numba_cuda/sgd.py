"""g = clip · grad + weight_decay · param

    velocity = momentum · velocity + g        param = param - lr · velocity

One pass over memory: a block takes 1,024 elements at a time, a thread four of them (`_fours.py`). lr and
clip stay on the device; a clip that is NaN changes nothing.
"""

from numba import cuda

from backends.numba_cuda._fours import FOUR, first_element, four, launch_fours, put, stride
from harness import hookimpl


@hookimpl
def sgd(param_P, velocity_P, grad_P, lr_1, clip_1, momentum, weight_decay):
    kernel, arrays = _roll, (param_P, velocity_P, grad_P, lr_1, clip_1, momentum)
    if velocity_P is None:
        kernel, arrays = _descend, (param_P, grad_P, lr_1, clip_1)
    launch_fours(kernel, param_P.size, *arrays, weight_decay)


@cuda.jit
def _descend(param_P, grad_P, lr_1, clip_1, weight_decay):
    lr, clip = lr_1[0], clip_1[0]
    if clip != clip:
        return
    for p in range(first_element(), param_P.size, stride()):
        param, grad = four(param_P, p), four(grad_P, p)
        for k in range(FOUR):
            g = clip * grad[k] + weight_decay * param[k]
            put(param_P, p, k, param[k] - lr * g)


@cuda.jit
def _roll(param_P, velocity_P, grad_P, lr_1, clip_1, momentum, weight_decay):
    lr, clip = lr_1[0], clip_1[0]
    if clip != clip:
        return
    for p in range(first_element(), param_P.size, stride()):
        param, grad, velocity = four(param_P, p), four(grad_P, p), four(velocity_P, p)
        for k in range(FOUR):
            g = clip * grad[k] + weight_decay * param[k]
            rolled = momentum * velocity[k] + g
            put(velocity_P, p, k, rolled)
            put(param_P, p, k, param[k] - lr * rolled)
