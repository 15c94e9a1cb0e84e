import math

import numpy as np

from tests.conformance.honest import gelu
from tests.conformance.honest.gelu import GELU_A, GELU_C, HALF, ONE, inner, inner_slope
from tests.conformance.wrong import wrong
from tests.conformance.wrong.rounding import as_half


def tanh_form(x, a):
    return HALF * x * (ONE + np.tanh(GELU_C * (x + np.float32(a) * x**3)))


def backward_of(dx_NF, dout_NF, x_NF, slope_of_inner):
    tanh = np.tanh(inner(x_NF))
    slope = HALF * (ONE + tanh) + HALF * x_NF * (ONE - tanh**2) * slope_of_inner
    dx_NF[...] = dout_NF * slope


@wrong("gelu_forward", "the erf form, not GPT-2's")
def erf_form(out_NF, x_NF):
    erf = np.vectorize(math.erf, otypes=[np.float32])
    out_NF[...] = HALF * x_NF * (ONE + erf(x_NF / np.float32(math.sqrt(2))))


@wrong("gelu_forward", "the constant 0.44715")
def constant_ten_times(out_NF, x_NF):
    out_NF[...] = tanh_form(x_NF, 0.44715)


@wrong("gelu_forward", "the constant cut to 0.0447", subtle=True)
def constant_cut(out_NF, x_NF):
    out_NF[...] = tanh_form(x_NF, 0.0447)


@wrong("gelu_forward", "x or 0 beyond |x| > 4, which is too early", subtle=True)
def saturates_early(out_NF, x_NF):
    out_NF[...] = np.where(np.abs(x_NF) > 4, np.maximum(x_NF, 0), tanh_form(x_NF, GELU_A))


@wrong("gelu_forward", "x clamped to -10 .. 10, and the clamped x returned", subtle=True)
def clamped_at_ten(out_NF, x_NF):
    out_NF[...] = tanh_form(np.clip(x_NF, -10, 10), GELU_A)


@wrong("gelu_forward", "tanh as (e^2u - 1) / (e^2u + 1), which overflows", subtle=True)
def tanh_overflows(out_NF, x_NF):
    with np.errstate(all="ignore"):
        e = np.exp(2 * inner(x_NF))
        out_NF[...] = HALF * x_NF * (ONE + (e - ONE) / (e + ONE))


@wrong("gelu_forward", "the quick form, x / (1 + exp(-1.702 x))")
def quick_form(out_NF, x_NF):
    with np.errstate(over="ignore"):
        out_NF[...] = x_NF / (ONE + np.exp(np.float32(-1.702) * x_NF))


@wrong("gelu_forward", "vectors of 4; what is left over is not written", subtle=True)
def tail_dropped(out_NF, x_NF):
    whole = x_NF.size // 4 * 4
    out_NF.reshape(-1)[:whole] = tanh_form(x_NF.reshape(-1)[:whole], GELU_A)


@wrong(
    "gelu_forward",
    "vectors of 4; the last one is stored beyond the end",
    subtle=True,
    law="untouched",
)
def store_overruns(out_NF, x_NF):
    gelu.forward(out_NF, x_NF)
    whole = -(-x_NF.size // 4) * 4
    beyond = np.lib.stride_tricks.as_strided(out_NF.reshape(-1), (whole,), (4,))
    beyond[x_NF.size :] = 0


@wrong("gelu_forward", "x^3 made where x lies, in the input", subtle=True, law="untouched")
def cubed_in_place(out_NF, x_NF):
    gelu.forward(out_NF, x_NF)
    x_NF *= x_NF * x_NF


@wrong("gelu_forward", "computed in float16")
def in_half(out_NF, x_NF):
    gelu.forward(out_NF, as_half(x_NF))


@wrong(
    "gelu_forward",
    "noise below the last place, as stochastic rounding adds",
    subtle=True,
    law="repeat",
)
def dithered(out_NF, x_NF):
    gelu.forward(out_NF, x_NF)
    up = np.random.default_rng().random(out_NF.shape) < 0.5
    out_NF[up] = np.nextafter(out_NF[up], np.float32(np.inf))


@wrong("gelu_backward", "the product rule's second term is missing")
def chain_term_missing(dx_NF, dout_NF, x_NF):
    backward_of(dx_NF, dout_NF, x_NF, np.float32(0))


@wrong("gelu_backward", "the 3 of the cube's slope is missing")
def three_missing(dx_NF, dout_NF, x_NF):
    backward_of(dx_NF, dout_NF, x_NF, GELU_C * (ONE + GELU_A * x_NF**2))


@wrong("gelu_backward", "tanh in place of its square")
def tanh_not_squared(dx_NF, dout_NF, x_NF):
    tanh = np.tanh(inner(x_NF))
    slope = HALF * (ONE + tanh) + HALF * x_NF * (ONE - tanh) * inner_slope(x_NF)
    dx_NF[...] = dout_NF * slope


@wrong("gelu_backward", "dout is taken to be one")
def dout_ignored(dx_NF, dout_NF, x_NF):
    gelu.backward(dx_NF, np.ones_like(dout_NF), x_NF)


@wrong("gelu_backward", "added to dx: relies on zeros there", subtle=True)
def dx_added_to(dx_NF, dout_NF, x_NF):
    dx = np.empty_like(dx_NF)
    gelu.backward(dx, dout_NF, x_NF)
    dx_NF += dx


@wrong("gelu_backward", "1 / cosh^2 with cosh overflowing to infinity times zero", subtle=True)
def cosh_overflows(dx_NF, dout_NF, x_NF):
    with np.errstate(all="ignore"):
        cosh = np.cosh(inner(x_NF))
        sech2 = (cosh / cosh) / (cosh * cosh)
        slope = HALF * (ONE + np.tanh(inner(x_NF))) + HALF * x_NF * sech2 * inner_slope(x_NF)
        dx_NF[...] = dout_NF * slope


@wrong("gelu_backward", "slope 1 or 0 beyond |x| > 4, which is too early", subtle=True)
def slope_saturates_early(dx_NF, dout_NF, x_NF):
    gelu.with_cosh(dx_NF, dout_NF, x_NF)
    far = np.abs(x_NF) > 4
    dx_NF[far] = np.where(x_NF[far] > 0, dout_NF[far], 0)


@wrong("gelu_backward", "the constant of u' cut to 0.134")
def slope_constant_cut(dx_NF, dout_NF, x_NF):
    backward_of(dx_NF, dout_NF, x_NF, GELU_C * (ONE + np.float32(0.134) * x_NF**2))
