"""AdamW over the float32 masters, which writes the low-precision weights as it goes.

    param, m, v  as `adamw` makes them
    low = round(param)          to nearest even, or at random where there is a key

One pass in place of two: the masters are not read again to be cast.
Source: Micikevicius et al. 2018, arXiv:1710.03740 (master weights); `adamw` and `stochastic_cast`.
"""

import numpy as np

from harness.contract import Const, Ids, Magnitude, Out, State, hookspec
from harness.ops import adamw
from harness.ops.stochastic_cast import round_at_random

SHAPES = ({"P": 1 << 20}, {"P": 124_475_904})

# What float32 may differ by is judged in `param`: the tolerance of one sum of one term, and a number
# that is flushed to zero.
SHARE = 6 * 2.0**-24
ROUNDOFF = 2.0**-24
FLUSHED = 2.0**-126


@hookspec
def adamw_master(
    param_P: State,
    low_P: Out,
    m_P: State,
    v_P: State,
    grad_P: Const,
    lr_1: Const,
    correction_2: Const,
    clip_1: Const,
    key_2: Ids | None,
    beta1: float,
    beta2: float,
    eps: float,
    weight_decay: float,
    first: int,
) -> None:
    """Update param_P, m_P and v_P in place as `adamw` does, bit for bit, and overwrite low_P.

    low_P: the new param_P, as `cast` rounds it where key_2 is None (to low_P's dtype), and otherwise
    as `stochastic_cast` does with this key_2 and `first`.
    lr_1, correction_2, clip_1: as of `adamw`, float32. Where clip_1 is NaN, param_P, m_P and v_P keep
    their bits, and low_P is made of param_P as it is.
    first: the number of the first element; not negative, and a multiple of 4.
    """


def example_settings(dims):
    first = (0, 4, 1_000, (1 << 34) - 8)[dims["P"] % 4]
    return {**adamw.example_settings(dims), "first": first}


def example_inputs(rng, dims, settings):
    key = rng.integers(-(1 << 31), 1 << 31, size=2)
    return {**adamw.example_inputs(rng, dims, settings), "key_2": key}


def reference_forward(
    param_P,
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
    param, m, v = param_P, m_P, v_P
    if not np.isnan(clip_1[0]):
        param, m, v = adamw.reference_forward(
            param_P, m_P, v_P, grad_P, lr_1, correction_2, clip_1, beta1, beta2, eps, weight_decay
        )
    low = param if key_2 is None else round_at_random(param, key_2, first).astype(np.float64)
    return param, low, m, v


def magnitude_forward(
    param_P,
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
    values = (param_P, m_P, v_P, grad_P, lr_1, correction_2, clip_1)
    settings = (beta1, beta2, eps, weight_decay)
    S_param, S_m, S_v = adamw.magnitude_forward(*values, *settings)
    S_low = S_param
    if key_2 is not None:
        # Which way a number goes is settled by its last bits: where float32 may have others, both
        # ways are right, and elsewhere exactly one.
        param, _, _ = adamw.reference_forward(*values, *settings)
        off = ROUNDOFF * np.abs(param) + SHARE * S_param.S + FLUSHED
        below, above = (round_at_random(param + d, key_2, first) for d in (-off, off))
        S_low = Magnitude((above.astype(np.float64) - below) / SHARE, 1)
    return S_param, S_low, S_m, S_v


def flops_forward(P):
    return 15 * P
