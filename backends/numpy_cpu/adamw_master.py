"""param, m, v = adamw(...)        low = round(param)

Block after block: the masters are rounded while they are in the cache, and memory sees one pass of 30
bytes a parameter.
"""

import numpy as np

from backends.numpy_cpu._blocks import in_blocks_on_all_cores
from backends.numpy_cpu._random import round_at_random
from backends.numpy_cpu.adamw import adamw
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
    scalars = (lr_1, correction_2, clip_1, beta1, beta2, eps, weight_decay)

    def block(run):
        param, low = param_P[run], low_P[run]
        adamw(param, m_P[run], v_P[run], grad_P[run], *scalars)
        if key_2 is None:
            np.copyto(low, param, casting="same_kind")
        else:
            round_at_random(low, param, key_2, first + run.start)

    in_blocks_on_all_cores(block, param_P.size)
