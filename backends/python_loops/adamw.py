"""m = beta1 m + (1 - beta1) g        v = beta2 v + (1 - beta2) g²        g = clip · grad

    param = param - lr · (m / c1 / (sqrt(v / c2) + eps) + weight_decay · param)

One pass over the parameters: the step is taken with m and v as computed, before they are rounded.
"""

import math

from backends.python_loops._ieee import divide, sqrt
from harness import hookimpl


@hookimpl
def adamw(
    param_P,
    m_P,
    v_P,
    grad_P,
    lr_1,
    correction_2,
    clip_1,
    beta1,
    beta2,
    eps,
    weight_decay,
):
    lr, clip = lr_1[0], clip_1[0]
    if math.isnan(clip):
        return
    c1, c2 = correction_2[0], correction_2[1]
    for p, param in enumerate(param_P):
        g = clip * grad_P[p]
        m = beta1 * m_P[p] + (1 - beta1) * g
        v = beta2 * v_P[p] + (1 - beta2) * g**2
        step = divide(divide(m, c1), sqrt(divide(v, c2)) + eps)
        param_P[p] = param - lr * (step + weight_decay * param)
        m_P[p] = m
        v_P[p] = v
