"""g = clip · grad + weight_decay · param

    velocity = momentum · velocity + g        param = param - lr · velocity

One pass over memory: every step of a block but the first finds its numbers in the cache.
"""

import math

import numpy as np

from backends.numpy_cpu._blocks import in_blocks_on_all_cores
from backends.numpy_cpu._scratch import scratch
from harness import hookimpl


@hookimpl
def sgd(param_P, velocity_P, grad_P, lr_1, clip_1, momentum, weight_decay):
    lr, clip = float(lr_1[0]), float(clip_1[0])
    if math.isnan(clip):
        return

    def block(run):
        param = param_P[run]
        g, t = scratch("sgd.g", param.shape), scratch("sgd.t", param.shape)
        np.multiply(grad_P[run], clip, out=g)
        np.multiply(param, weight_decay, out=t)
        np.add(g, t, out=g)
        if velocity_P is not None:
            velocity = velocity_P[run]
            np.multiply(velocity, momentum, out=velocity)
            np.add(velocity, g, out=velocity)
            g = velocity
        np.multiply(g, lr, out=t)
        np.subtract(param, t, out=param)

    in_blocks_on_all_cores(block, param_P.size)
