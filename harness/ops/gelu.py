"""GELU in the tanh form that GPT-2 was trained with.

    u = sqrt(2/pi) (x + 0.044715 x^3)       out = x (1 + tanh u) / 2
    dx = dout * ((1 + tanh u) / 2 + x (1 - tanh^2 u) u' / 2)      u' = sqrt(2/pi) (1 + 3 * 0.044715 x^2)

Source: Hendrycks and Gimpel 2016, arXiv:1606.08415; openai/gpt-2, src/model.py.
"""

import math

import numpy as np

from harness.contract import In, Magnitude, Out, hookspec

GELU_C = math.sqrt(2 / math.pi)
GELU_A = 0.044715
SHAPES = ({"N": 256, "F": 3072}, {"N": 1024, "F": 3072})

# Float32 tanh is 1 to the last bit beyond this, so 1 - tanh^2 carries no rounding there. Correctly
# rounded it would be from 9.02 on; one unit off, as libraries are, NumPy's is below 1 up to 10.
TANH_SATURATES = 10.1


@hookspec
def gelu_forward(out_NF: Out, x_NF: In) -> None:
    """Fill out_NF with GELU(x_NF), elementwise."""


@hookspec
def gelu_backward(dx_NF: Out, dout_NF: In, x_NF: In) -> None:
    """Fill dx_NF with dout_NF times the slope of GELU at x_NF."""


def _inner(x):
    return GELU_C * (x + GELU_A * x**3)


def _inner_slope(x):
    return GELU_C * (1 + 3 * GELU_A * x**2)


def reference_forward(x_NF):
    return (0.5 * x_NF * (1 + np.tanh(_inner(x_NF))),)


def reference_backward(dout_NF, x_NF):
    tanh = np.tanh(_inner(x_NF))
    slope = 0.5 * (1 + tanh) + 0.5 * x_NF * (1 - tanh**2) * _inner_slope(x_NF)
    return (dout_NF * slope,)


def magnitude_forward(x_NF):
    u = _inner(x_NF)
    return (Magnitude(np.abs(x_NF) * (1 + np.abs(u) * (1 - np.tanh(u) ** 2)), 1),)


def magnitude_backward(dout_NF, x_NF):
    u = np.abs(_inner(x_NF))
    cancelling = np.abs(x_NF) * _inner_slope(x_NF) * (1 + u * (1 - np.tanh(u) ** 2))
    return (Magnitude(np.abs(dout_NF) * (1 + np.where(u < TANH_SATURATES, cancelling, 0)), 1),)


def flops_forward(N, F):
    return 8 * N * F


def flops_backward(N, F):
    return 16 * N * F
