"""One step of AdamW for one element, bit for bit the same in every kernel that makes it.

Each sum with a product is written as one fma: left to the compiler, which product of two is rounded may
differ from kernel to kernel.
"""

from numba import cuda

from backends.numba_cuda._math import sqrt


def settings(beta1, beta2, eps, weight_decay):
    """What the kernels take; 1 - beta is formed in Python's floats, which are double."""
    return beta1, 1 - beta1, beta2, 1 - beta2, eps, weight_decay


@cuda.jit(device=True)
def factors_of(lr, correction_2, eps, weight_decay):
    """step, least and decay, which are the same for all elements.

    m / c1 / (sqrt(v / c2) + eps) = (sqrt(c2) / c1) · m / (sqrt(v) + eps sqrt(c2))
    """
    root = sqrt(correction_2[1])
    return lr * (root / correction_2[0]), eps * root, lr * weight_decay


@cuda.jit(device=True)
def moments(m, v, g, beta1, rest1, beta2, rest2):
    """m and v after a gradient."""
    return cuda.fma(beta1, m, rest1 * g), cuda.fma(beta2, v, rest2 * (g * g))


@cuda.jit(device=True)
def updated(param, m, v, step, least, decay):
    """param after a step."""
    # Not (1 - decay) · param: next to 1 a decay of 1e-5 would keep three digits.
    return param - cuda.fma(decay, param, step * m / (sqrt(v) + least))
