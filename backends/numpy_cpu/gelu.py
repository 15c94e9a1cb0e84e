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
LARGEST_E = 8e37  # its reciprocal is still a normal float32


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
    _exp_minus_2u(e, x)
    np.add(e, 1, out=e)
    np.divide(x, e, out=out)


def gelu_gradient(dx, dout, x):
    """dx = dout * s * (1 + (1 - s) * x * 2u') of one block. x is float32.

    With e = exp(-2u): s = 1 / (1 + e), and 1 - s = e * s, which has all its digits where s is near 1.
    """
    e, s, slope = (scratch(name, x.shape) for name in ("gelu.e", "gelu.s", "gelu.slope"))
    np.multiply(x, x, out=e)
    np.multiply(e, 6 * GELU_C * GELU_A, out=slope)
    np.add(slope, 2 * GELU_C, out=slope)
    np.multiply(slope, x, out=slope)
    _exp_minus_2u(e, x)
    # Infinity times its s, which is 0, would be NaN. (np.minimum takes twice as long.)
    np.clip(e, 0, LARGEST_E, out=e)
    np.add(e, 1, out=s)
    np.divide(1, s, out=s)
    np.multiply(e, s, out=e)
    np.multiply(slope, e, out=slope)
    np.add(slope, 1, out=slope)
    np.multiply(slope, s, out=slope)
    np.multiply(slope, float32("gelu.dout", dout), out=dx)


def _exp_minus_2u(e, x):
    """Turn e from x^2 into exp(-2u): infinite where that overflows, which gelu divides by."""
    np.multiply(e, -2 * GELU_C * GELU_A, out=e)
    np.subtract(e, 2 * GELU_C, out=e)
    np.multiply(e, x, out=e)
    np.exp(e, out=e)
