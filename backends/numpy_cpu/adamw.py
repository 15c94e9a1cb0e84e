"""m = beta1 m + (1 - beta1) g        v = beta2 v + (1 - beta2) g²        g = clip · grad

    param = param - lr · (m / c1 / (sqrt(v / c2) + eps) + weight_decay · param)

Thirteen passes over a block, which memory sees as one: 28 bytes a parameter. Factors are formed in
Python's floats, which are double, and the corrections moved into them:
m / c1 / (sqrt(v / c2) + eps) = (sqrt(c2) / c1) · m / (sqrt(v) + eps sqrt(c2)).
"""

import math

import numpy as np

from backends.numpy_cpu._blocks import in_blocks_on_all_cores
from backends.numpy_cpu._scratch import scratch
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
    lr, clip = float(lr_1[0]), float(clip_1[0])
    if math.isnan(clip):
        return
    c1, root_c2 = float(correction_2[0]), math.sqrt(correction_2[1])

    def block(run):
        param, m, v, grad = param_P[run], m_P[run], v_P[run], grad_P[run]
        t = scratch("adamw.t", param.shape)
        np.multiply(grad, (1 - beta1) * clip, out=t)
        np.multiply(m, beta1, out=m)
        np.add(m, t, out=m)
        np.multiply(grad, grad, out=t)
        np.multiply(t, (1 - beta2) * clip * clip, out=t)
        np.multiply(v, beta2, out=v)
        np.add(v, t, out=v)
        np.sqrt(v, out=t)
        np.add(t, eps * root_c2, out=t)
        np.divide(m, t, out=t)
        np.multiply(t, lr * root_c2 / c1, out=t)
        np.multiply(param, 1 - lr * weight_decay, out=param)
        np.subtract(param, t, out=param)

    in_blocks_on_all_cores(block, param_P.size)
