from tests.conformance.honest import adamw as honest_adamw
from tests.conformance.honest import honest
from tests.conformance.honest.stochastic_cast import by_comparison, stochastic_cast


def to_low(low_P, param_P, key_2, first, cast=stochastic_cast):
    if key_2 is None:
        low_P[...] = param_P
    else:
        cast(low_P, param_P, key_2, first)


@honest("adamw_master", "adamw, then the rounding of what it wrote")
def adamw_master(param_P, low_P, m_P, v_P, grad_P, lr_1, correction_2, clip_1, key_2, *settings):
    *scalars, first = settings
    honest_adamw.adamw(param_P, m_P, v_P, grad_P, lr_1, correction_2, clip_1, *scalars)
    to_low(low_P, param_P, key_2, first)


@honest("adamw_master", "adamw in float64, rounded to float32 and from there")
def in_double(param_P, low_P, m_P, v_P, grad_P, lr_1, correction_2, clip_1, key_2, *settings):
    *scalars, first = settings
    honest_adamw.in_double(param_P, m_P, v_P, grad_P, lr_1, correction_2, clip_1, *scalars)
    to_low(low_P, param_P, key_2, first, by_comparison)
