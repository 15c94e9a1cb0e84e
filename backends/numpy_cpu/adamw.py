"""m = beta1 m + (1 - beta1) g, v = beta2 v + (1 - beta2) g^2, param -= lr (m/c1 / (sqrt(v/c2) + eps) + decay param).

Twelve ufuncs over a block, so memory sees each number once: seven accesses a parameter. The factors
are formed in Python's floats, which are double, and the bias corrections are moved into them:
m/c1 / (sqrt(v/c2) + eps) = sqrt(c2)/c1 * m / (sqrt(v) + eps sqrt(c2)).
"""

import math

import numpy as np

from backends.numpy_cpu.blocks import in_blocks
from backends.numpy_cpu.scratch import scratch
from harness import hookimpl


@hookimpl
def adamw(param_P, m_P, v_P, grad_P, lr_1, correction_2, clip_1, beta1, beta2, eps, weight_decay):
    lr, clip = float(lr_1[0]), float(clip_1[0])
    correction_1, correction_2 = map(float, correction_2)
    to_m = (1 - beta1) * clip
    to_v = (1 - beta2) * clip * clip
    lr_corrected = lr * math.sqrt(correction_2) / correction_1
    eps_corrected = eps * math.sqrt(correction_2)
    kept = 1 - lr * weight_decay

    def block(run):
        param, m, v, grad = param_P[run], m_P[run], v_P[run], grad_P[run]
        t = scratch("adamw.t", param.shape)
        np.multiply(grad, to_m, out=t)
        np.multiply(m, beta1, out=m)
        np.add(m, t, out=m)
        np.multiply(grad, grad, out=t)
        np.multiply(t, to_v, out=t)
        np.multiply(v, beta2, out=v)
        np.add(v, t, out=v)
        np.sqrt(v, out=t)
        np.add(t, eps_corrected, out=t)
        np.divide(m, t, out=t)
        np.multiply(t, lr_corrected, out=t)
        if weight_decay:
            np.multiply(param, kept, out=param)
        np.subtract(param, t, out=param)

    in_blocks(block, param_P.size, 1)
