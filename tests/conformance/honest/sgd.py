import numpy as np

from tests.conformance.honest import honest


@honest("sgd", "the formula as it stands")
def sgd(param_P, velocity_P, grad_P, lr_1, clip_1, momentum, weight_decay):
    if np.isnan(clip_1[0]):
        return
    step = grad_P * clip_1 + np.float32(weight_decay) * param_P
    if velocity_P is not None:
        velocity_P[...] = np.float32(momentum) * velocity_P + step
        step = velocity_P
    param_P -= lr_1 * step


@honest("sgd", "decay, velocity and step each added to its buffer")
def in_place(param_P, velocity_P, grad_P, lr_1, clip_1, momentum, weight_decay):
    if np.isnan(clip_1[0]):
        return
    if velocity_P is None:
        shrink = np.float32(1 - float(lr_1[0]) * weight_decay)
        param_P *= shrink
        param_P -= (lr_1 * clip_1) * grad_P
        return
    velocity_P *= np.float32(momentum)
    velocity_P += np.float32(weight_decay) * param_P
    velocity_P += clip_1 * grad_P
    param_P -= lr_1 * velocity_P
