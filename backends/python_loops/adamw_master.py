"""param, m, v = adamw(...)        low = round(param)

The optimizer's loop, and then another: param is rounded as it was written, in float32.
"""

from backends.python_loops._random import rounded_at_random
from backends.python_loops.adamw import adamw
from harness import hookimpl


@hookimpl
def adamw_master(
    param_P,
    low_P,
    m_P,
    v_P,
    grad_P,
    lr_1,
    correction_2,
    clip_1,
    key_2,
    beta1,
    beta2,
    eps,
    weight_decay,
    first,
):
    adamw(param_P, m_P, v_P, grad_P, lr_1, correction_2, clip_1, beta1, beta2, eps, weight_decay)
    for p, param in enumerate(param_P):
        low_P[p] = param if key_2 is None else rounded_at_random(param, first + p, key_2)
