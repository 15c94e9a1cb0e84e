import numpy as np

from tests.conformance.honest import sgd as honest
from tests.conformance.wrong import wrong


@wrong("sgd", "Nesterov's momentum")
def nesterov(param_P, velocity_P, grad_P, lr_1, clip_1, momentum, weight_decay):
    g = grad_P * clip_1 + np.float32(weight_decay) * param_P
    if velocity_P is not None:
        velocity_P[...] = np.float32(momentum) * velocity_P + g
        g = g + np.float32(momentum) * velocity_P
    param_P -= lr_1 * g


@wrong("sgd", "decay with the wrong sign")
def decay_grows(param_P, velocity_P, grad_P, lr_1, clip_1, momentum, weight_decay):
    honest.sgd(param_P, velocity_P, grad_P, lr_1, clip_1, momentum, -weight_decay)


@wrong("sgd", "the learning rate inside of the velocity")
def lr_in_velocity(param_P, velocity_P, grad_P, lr_1, clip_1, momentum, weight_decay):
    g = lr_1 * (grad_P * clip_1 + np.float32(weight_decay) * param_P)
    if velocity_P is not None:
        velocity_P[...] = g = np.float32(momentum) * velocity_P + g
    param_P -= g


@wrong("sgd", "dampened: (1 - momentum) g")
def dampened(param_P, velocity_P, grad_P, lr_1, clip_1, momentum, weight_decay):
    g = grad_P * clip_1 + np.float32(weight_decay) * param_P
    if velocity_P is not None:
        velocity_P[...] = g = np.float32(momentum) * velocity_P + np.float32(1 - momentum) * g
    param_P -= lr_1 * g


@wrong("sgd", "a velocity is taken to be always there", subtle=True)
def velocity_always_there(param_P, velocity_P, grad_P, lr_1, clip_1, momentum, weight_decay):
    velocity_P *= np.float32(momentum)
    velocity_P += grad_P * clip_1 + np.float32(weight_decay) * param_P
    param_P -= lr_1 * velocity_P


@wrong("sgd", "the decay is clipped too")
def decay_clipped(param_P, velocity_P, grad_P, lr_1, clip_1, momentum, weight_decay):
    grad = grad_P + np.float32(weight_decay) * param_P
    honest.sgd(param_P, velocity_P, grad, lr_1, clip_1, momentum, 0.0)


@wrong("sgd", "decoupled decay, as in AdamW")
def decay_decoupled(param_P, velocity_P, grad_P, lr_1, clip_1, momentum, weight_decay):
    decayed = lr_1 * np.float32(weight_decay) * param_P
    honest.sgd(param_P, velocity_P, grad_P, lr_1, clip_1, momentum, 0.0)
    param_P -= decayed


@wrong("sgd", "the gradient is clipped where it lies, in the input", subtle=True, law="untouched")
def gradient_clipped_in_place(param_P, velocity_P, grad_P, lr_1, clip_1, momentum, weight_decay):
    honest.sgd(param_P, velocity_P, grad_P, lr_1, clip_1, momentum, weight_decay)
    grad_P *= clip_1


@wrong("sgd", "a clip of NaN is taken for no gradient: the decay goes on", subtle=True)
def nan_clip_still_decays(param_P, velocity_P, grad_P, lr_1, clip_1, momentum, weight_decay):
    clip_1 = np.nan_to_num(clip_1, nan=0.0)
    honest.sgd(param_P, velocity_P, grad_P, lr_1, clip_1, momentum, weight_decay)
