"""AdamW: one step of Adam with decoupled weight decay, over a flat run of parameters.

    g = clip * grad
    m = beta1 m + (1 - beta1) g        v = beta2 v + (1 - beta2) g^2
    param = param - lr * (m / c1 / (sqrt(v / c2) + eps) + weight_decay * param)

`correction_2` holds c1 = 1 - beta1^t and c2 = 1 - beta2^t. They, and 1 - beta2 in a kernel, are computed
in double on the host: 1 - 0.999 in float32 is 120 units in the last place off. What changes from step
to step is a buffer, so that a captured graph can replay. A clip of NaN makes a step that is
not finite change nothing, so the host need not decide (guard, clip_scale).
Source: Loshchilov and Hutter 2017, arXiv:1711.05101; llm.c, gpt2_update.
"""

import numpy as np

from harness.contract import Const, Magnitude, State, hookspec

SHAPES = ({"P": 1 << 20}, {"P": 124_475_904})


@hookspec
def adamw(
    param_P: State,
    m_P: State,
    v_P: State,
    grad_P: Const,
    lr_1: Const,
    correction_2: Const,
    clip_1: Const,
    beta1: float,
    beta2: float,
    eps: float,
    weight_decay: float,
) -> None:
    """Update param_P, m_P and v_P in place; where clip_1 is NaN, they keep their bits.

    lr_1: the learning rate. correction_2: 1 - beta1^t and 1 - beta2^t, t counted from 1.
    clip_1: what the gradient is multiplied by (1 where nothing is clipped). All are float32.
    """


def example_settings(dims):
    return {"beta1": 0.9, "beta2": 0.999, "eps": 1e-8, "weight_decay": 0.1}


def example_inputs(rng, dims, settings):
    t = int(rng.integers(1, 200))
    correction = [1 - settings["beta1"] ** t, 1 - settings["beta2"] ** t]
    v_P = rng.random(dims["P"]) ** 2
    lr_1 = np.array([10 ** rng.uniform(-4, -1)])
    clip_1 = rng.uniform(0.2, 1, size=1)
    return {
        "v_P": v_P,  # a second moment is never negative
        "lr_1": lr_1,
        "correction_2": np.array(correction),
        "clip_1": np.where(clip_1 < 0.28, np.nan, clip_1),  # one in ten: a step that was not finite
    }


def reference_forward(
    param_P, m_P, v_P, grad_P, lr_1, correction_2, clip_1, beta1, beta2, eps, weight_decay
):
    if np.isnan(clip_1[0]):
        return param_P, m_P, v_P
    g = grad_P * clip_1
    m = beta1 * m_P + (1 - beta1) * g
    v = beta2 * v_P + (1 - beta2) * g**2
    step = m / correction_2[0] / (np.sqrt(v / correction_2[1]) + eps)
    return param_P - lr_1 * (step + weight_decay * param_P), m, v


def magnitude_forward(
    param_P, m_P, v_P, grad_P, lr_1, correction_2, clip_1, beta1, beta2, eps, weight_decay
):
    if np.isnan(clip_1[0]):
        return (Magnitude(np.zeros_like(param_P), 1),) * 3  # kept to the bit
    g = np.abs(grad_P * clip_1)
    S_m = beta1 * np.abs(m_P) + (1 - beta1) * g
    S_v = beta2 * v_P + (1 - beta2) * g**2
    step = S_m / correction_2[0] / (np.sqrt(S_v / correction_2[1]) + eps)
    S_param = np.abs(param_P) + np.abs(lr_1) * (2 * step + weight_decay * np.abs(param_P))
    return Magnitude(S_param, 1), Magnitude(S_m, 1), Magnitude(S_v, 1)


def flops_forward(P):
    return 15 * P
