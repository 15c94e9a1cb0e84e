import math

import numpy as np

from tests.conformance.honest import honest

GELU_C = np.float32(math.sqrt(2 / math.pi))
GELU_A = np.float32(0.044715)
HALF, ONE, TWO, THREE = np.float32([0.5, 1, 2, 3])


def inner(x):
    return GELU_C * (x + GELU_A * x**3)


def inner_slope(x):
    return GELU_C * (ONE + THREE * GELU_A * x**2)


@honest("gelu_forward", "the formula as it stands")
def forward(out_NF, x_NF):
    out_NF[...] = HALF * x_NF * (ONE + np.tanh(inner(x_NF)))


@honest("gelu_forward", "x times the logistic function of 2u")
def logistic(out_NF, x_NF):
    with np.errstate(over="ignore"):
        out_NF[...] = x_NF / (ONE + np.exp(-TWO * inner(x_NF)))


@honest("gelu_forward", "the cubic by Horner's rule; x/2 + x/2 tanh u")
def horner(out_NF, x_NF):
    half = HALF * x_NF
    u = x_NF * (GELU_C + GELU_C * GELU_A * (x_NF * x_NF))
    out_NF[...] = half + half * np.tanh(u)


@honest("gelu_forward", "u brought into -10 .. 10, where tanh is 1 to the last bit")
def clamped(out_NF, x_NF):
    u = np.clip(inner(x_NF), -10, 10)
    out_NF[...] = HALF * x_NF * (ONE + np.tanh(u))


@honest("gelu_backward", "1 - tanh^2 as it stands")
def backward(dx_NF, dout_NF, x_NF):
    tanh = np.tanh(inner(x_NF))
    slope = HALF * (ONE + tanh) + HALF * x_NF * (ONE - tanh**2) * inner_slope(x_NF)
    dx_NF[...] = dout_NF * slope


@honest("gelu_backward", "1 / cosh^2 in place of 1 - tanh^2")
def with_cosh(dx_NF, dout_NF, x_NF):
    u = np.clip(inner(x_NF), -40, 40)
    sech2 = ONE / np.cosh(u) ** 2
    slope = HALF * (ONE + np.tanh(u)) + HALF * x_NF * sech2 * inner_slope(x_NF)
    dx_NF[...] = dout_NF * slope


@honest("gelu_backward", "by the logistic function s of 2u: s + 2 x s (1 - s) u'")
def logistic_backward(dx_NF, dout_NF, x_NF):
    with np.errstate(over="ignore"):
        s = ONE / (ONE + np.exp(-TWO * inner(x_NF)))
    dx_NF[...] = dout_NF * (s + TWO * x_NF * s * (ONE - s) * inner_slope(x_NF))
