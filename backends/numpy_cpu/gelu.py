"""u = sqrt(2/pi) (x + 0.044715 x³)        out = x (1 + tanh u) / 2

    dx = dout · ((1 + tanh u) / 2 + x (1 - tanh² u) u' / 2)        u' = sqrt(2/pi) (1 + 3 · 0.044715 x²)

(1 + tanh u) / 2 is the logistic function of 2u, so out = x / (1 + exp(-2u)): seven passes over a block
that stays in the cache, with one scratch array and no power (`x**3` calls pow for every number).
"""

import math

import numpy as np

from backends.numpy_cpu._blocks import in_blocks
from backends.numpy_cpu._scratch import float32, scratch
from harness import hookimpl

GELU_C = math.sqrt(2 / math.pi)
GELU_A = 0.044715
FLAT = 10  # from 6 on, tanh u is 1 in float32


@hookimpl
def gelu_forward(out_NF, x_NF):
    def block(rows):
        gelu(out_NF[rows], float32("gelu.x", x_NF[rows]))

    in_blocks(block, *x_NF.shape)


@hookimpl
def gelu_backward(dx_NF, dout_NF, x_NF):
    def block(rows):
        gelu_gradient(dx_NF[rows], dout_NF[rows], float32("gelu.x", x_NF[rows]))

    in_blocks(block, *x_NF.shape)


def gelu(out, x):
    """out = x / (1 + exp(-2u)) of one block. x is float32."""
    e = scratch("gelu.e", x.shape)
    np.multiply(x, x, out=e)
    np.multiply(e, -2 * GELU_C * GELU_A, out=e)
    np.subtract(e, 2 * GELU_C, out=e)
    np.multiply(e, x, out=e)
    np.exp(e, out=e)  # infinite where it overflows, and x / infinity is 0
    np.add(e, 1, out=e)
    np.divide(x, e, out=out)


def gelu_gradient(dx, dout, x):
    """dx = dout · (1 + t) (1 + (1 - t) x u') / 2, t = tanh u, of one block. x is float32."""
    t, near, slope = (scratch(name, x.shape) for name in ("gelu.t", "gelu.near", "gelu.slope"))
    # Beyond, the slope is 0 or 1; far beyond, x^3 would overflow, and infinity times 0 is NaN.
    np.clip(x, -FLAT, FLAT, out=near)
    np.multiply(near, near, out=t)
    np.multiply(t, 1.5 * GELU_C * GELU_A, out=slope)
    np.add(slope, 0.5 * GELU_C, out=slope)
    np.multiply(slope, near, out=slope)
    np.multiply(t, GELU_C * GELU_A, out=t)
    np.add(t, GELU_C, out=t)
    np.multiply(t, near, out=t)
    np.tanh(t, out=t)
    np.subtract(1, t, out=near)
    np.multiply(slope, near, out=slope)
    np.add(slope, 0.5, out=slope)
    np.add(t, 1, out=t)
    np.multiply(slope, t, out=slope)
    np.multiply(slope, float32("gelu.dout", dout), out=dx)
