import numpy as np

from tests.conformance.honest import adamw
from tests.conformance.honest.adamw_master import adamw_master, to_low
from tests.conformance.wrong import wrong


@wrong("adamw_master", "the bf16 weights are those of before the update")
def low_of_the_old(param_P, low_P, m_P, v_P, grad_P, lr_1, correction_2, clip_1, key_2, *settings):
    *scalars, first = settings
    to_low(low_P, param_P, key_2, first)
    adamw.adamw(param_P, m_P, v_P, grad_P, lr_1, correction_2, clip_1, *scalars)


@wrong("adamw_master", "rounded to nearest where there is a key")
def key_ignored(param_P, low_P, m_P, v_P, grad_P, lr_1, correction_2, clip_1, key_2, *settings):
    scalars = (lr_1, correction_2, clip_1, None)
    adamw_master(param_P, low_P, m_P, v_P, grad_P, *scalars, *settings)


@wrong("adamw_master", "rounded at random where there is no key", subtle=True)
def key_made_up(param_P, low_P, m_P, v_P, grad_P, lr_1, correction_2, clip_1, key_2, *settings):
    key_2 = np.zeros(2, np.int32) if key_2 is None else key_2
    scalars = (lr_1, correction_2, clip_1, key_2)
    adamw_master(param_P, low_P, m_P, v_P, grad_P, *scalars, *settings)


@wrong("adamw_master", "the random words of the slice, not of the arena", subtle=True)
def from_zero(param_P, low_P, m_P, v_P, grad_P, lr_1, correction_2, clip_1, key_2, *settings):
    *scalars, _ = settings
    given = (lr_1, correction_2, clip_1, key_2)
    adamw_master(param_P, low_P, m_P, v_P, grad_P, *given, *scalars, 0)
