"""g = clip · grad + weight_decay · param

    velocity = momentum · velocity + g        param = param - lr · velocity

One pass over memory. lr and clip stay on the device; a clip that is NaN makes no update.
"""

from backends.cupy_cuda._launch import FLOAT, THREADS, Source, blocks_for, f32, i64
from harness import hookimpl

_SOURCE = Source("sgd", variants=(FLOAT,))


@hookimpl
def sgd(param_P, velocity_P, grad_P, lr_1, clip_1, momentum, weight_decay):
    P = param_P.size
    arrays = (param_P, velocity_P, grad_P, lr_1, clip_1)
    scalars = (f32(momentum), f32(weight_decay), i64(P))
    _SOURCE.launch("sgd", FLOAT, blocks_for(P // 4 + 1), THREADS, *arrays, *scalars)
