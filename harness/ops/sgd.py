"""SGD: one step of gradient descent, with momentum where a velocity is given.

    g = clip * grad + weight_decay * param
    velocity = momentum * velocity + g        param = param - lr * velocity
    (without a velocity: param = param - lr * g)

A clip of NaN makes a step that is not finite change nothing, so the host need not decide (guard,
clip_scale).

Source: Sutskever et al. 2013 (classical momentum, in the form of torch.optim.SGD).
"""

import numpy as np

from harness.contract import Const, Magnitude, State, hookspec

SHAPES = ({"P": 1 << 20},)


@hookspec
def sgd(
    param_P: State,
    velocity_P: State | None,
    grad_P: Const,
    lr_1: Const,
    clip_1: Const,
    momentum: float,
    weight_decay: float,
) -> None:
    """Update param_P, and velocity_P unless it is None, in place. Where clip_1 is NaN,
    they keep their bits.

    lr_1: the learning rate. clip_1: what the gradient is multiplied by. Both are float32.
    """


def example_settings(dims):
    return {"momentum": 0.9, "weight_decay": 0.1}


def example_inputs(rng, dims, settings):
    lr_1 = np.array([10 ** rng.uniform(-4, -1)])
    clip_1 = rng.uniform(0.2, 1, size=1)
    return {
        "lr_1": lr_1,
        "clip_1": np.where(clip_1 < 0.28, np.nan, clip_1),  # one in ten: a step that was not finite
    }


def reference_forward(param_P, velocity_P, grad_P, lr_1, clip_1, momentum, weight_decay):
    if np.isnan(clip_1[0]):
        return param_P, param_P if velocity_P is None else velocity_P
    g = grad_P * clip_1 + weight_decay * param_P
    velocity = g if velocity_P is None else momentum * velocity_P + g
    return param_P - lr_1 * velocity, velocity


def magnitude_forward(param_P, velocity_P, grad_P, lr_1, clip_1, momentum, weight_decay):
    if np.isnan(clip_1[0]):
        return (Magnitude(np.zeros_like(param_P), 1),) * 2  # kept to the bit
    S_velocity = np.abs(grad_P * clip_1) + weight_decay * np.abs(param_P)
    if velocity_P is not None:
        S_velocity = S_velocity + momentum * np.abs(velocity_P)
    S_param = np.abs(param_P) + np.abs(lr_1) * S_velocity
    return Magnitude(S_param, 1), Magnitude(S_velocity, 1)


def flops_forward(P):
    return 6 * P
