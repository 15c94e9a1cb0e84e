"""param, m, v as `adamw` makes them        low = round(param)

The step of adamw.py, bit for bit, and in the same pass the weights that products read: 30 bytes a
parameter, and the masters are not read again to be cast. Rounded to nearest, or at random by a key.
"""

from backends.cupy_cuda._launch import THREADS, blocks_for, i64, of
from backends.cupy_cuda.adamw import SOURCE, factors
from harness import hookimpl


@hookimpl
def adamw_master(
    param_P,
    low_P,
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
    P = param_P.size
    arrays = (param_P, low_P, m_P, v_P, grad_P, lr_1, correction_2, clip_1, key_2)
    scalars = (*factors(beta1, beta2, eps, weight_decay), i64(first), i64(P))
    blocks = blocks_for(P // 4 + 1)
    SOURCE.launch("adamw_master", of(low_P), blocks, THREADS, *arrays, *scalars)
