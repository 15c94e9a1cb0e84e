"""m = beta1 m + (1 - beta1) g        v = beta2 v + (1 - beta2) g²        g = clip · grad

    param = param - lr · (m / c1 / (sqrt(v / c2) + eps) + weight_decay · param)

One pass over the flat arena: four numbers in, three out, 28 bytes a parameter, which memory bounds.
lr, the corrections and clip stay on the device; a clip that is NaN makes no update. 1 - beta is formed
in Python's floats, which are double.
"""

from backends.cupy_cuda._launch import FLOAT, THREADS, Source, blocks_for, f32, i64
from harness import hookimpl

SOURCE = Source("adamw")


@hookimpl
def adamw(
    param_P,
    m_P,
    v_P,
    grad_P,
    lr_1,
    correction_2,
    clip_1,
    beta1,
    beta2,
    eps,
    weight_decay,
):
    P = param_P.size
    arrays = (param_P, m_P, v_P, grad_P, lr_1, correction_2, clip_1)
    scalars = (*factors(beta1, beta2, eps, weight_decay), i64(P))
    SOURCE.launch("adamw", FLOAT, blocks_for(P // 4 + 1), THREADS, *arrays, *scalars)


def factors(beta1, beta2, eps, weight_decay):
    """The settings as the kernels take them."""
    return tuple(map(f32, (beta1, 1 - beta1, beta2, 1 - beta2, eps, weight_decay)))
