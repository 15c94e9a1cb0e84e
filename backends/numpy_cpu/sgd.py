"""g = clip * grad + decay * param, velocity = momentum * velocity + g, param -= lr * velocity.

One block at a time, so that memory sees each number once.
"""

import numpy as np

from backends.numpy_cpu.blocks import in_blocks
from backends.numpy_cpu.scratch import scratch
from harness import hookimpl


@hookimpl
def sgd(param_P, velocity_P, grad_P, lr_1, clip_1, momentum, weight_decay):
    lr, clip = float(lr_1[0]), float(clip_1[0])

    def block(run):
        param, g = param_P[run], scratch("sgd.g", param_P[run].shape)
        decayed = scratch("sgd.decayed", param.shape)
        np.multiply(grad_P[run], clip, out=g)
        np.multiply(param, weight_decay, out=decayed)
        np.add(g, decayed, out=g)
        if velocity_P is not None:
            velocity = velocity_P[run]
            np.multiply(velocity, momentum, out=velocity)
            np.add(velocity, g, out=velocity)
            np.copyto(g, velocity)
        np.multiply(g, lr, out=g)
        np.subtract(param, g, out=param)

    in_blocks(block, param_P.size, 1)
