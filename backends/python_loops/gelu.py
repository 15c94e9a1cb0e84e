"""u = sqrt(2/pi) (x + 0.044715 x³)        out = x (1 + tanh u) / 2

    dx = dout · ((1 + tanh u) / 2 + x (1 - tanh² u) u' / 2)        u' = sqrt(2/pi) (1 + 3 · 0.044715 x²)

Each element stands alone, so both halves are one function of a number, and two loops around it.
"""

import math

from harness import hookimpl

GELU_C = math.sqrt(2 / math.pi)
GELU_A = 0.044715


@hookimpl
def gelu_forward(out_NF, x_NF):
    N, F = x_NF.shape
    for n in range(N):
        for f in range(F):
            out_NF[n, f] = gelu(x_NF[n, f])


@hookimpl
def gelu_backward(dx_NF, dout_NF, x_NF):
    N, F = x_NF.shape
    for n in range(N):
        for f in range(F):
            dx_NF[n, f] = dout_NF[n, f] * gelu_slope(x_NF[n, f])


def gelu(x):
    u = GELU_C * (x + GELU_A * x**3)
    return 0.5 * x * (1 + math.tanh(u))


def gelu_slope(x):
    tanh = math.tanh(GELU_C * (x + GELU_A * x**3))
    u_slope = GELU_C * (1 + 3 * GELU_A * x**2)
    return 0.5 * (1 + tanh) + 0.5 * x * (1 - tanh**2) * u_slope
