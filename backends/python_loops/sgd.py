"""g = clip · grad + weight_decay · param        velocity = momentum · velocity + g

    param = param - lr · velocity        (without a velocity: param - lr · g)

One pass over the parameters: the step is taken with the velocity as computed, before it is rounded.
"""

import math

from harness import hookimpl


@hookimpl
def sgd(param_P, velocity_P, grad_P, lr_1, clip_1, momentum, weight_decay):
    lr, clip = lr_1[0], clip_1[0]
    if math.isnan(clip):
        return
    for p, param in enumerate(param_P):
        velocity = clip * grad_P[p] + weight_decay * param
        if velocity_P is not None:
            velocity += momentum * velocity_P[p]
            velocity_P[p] = velocity
        param_P[p] = param - lr * velocity
