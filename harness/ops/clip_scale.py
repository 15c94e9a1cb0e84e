"""Clip scale: what the gradient is multiplied by, from the sum of its squares.

    scale = min(1, limit / (sqrt(sum) + 1e-6))

and NaN where the sum is not finite or scale was NaN already (guard): the optimizer then makes no update.
Source: Pascanu et al. 2013, arXiv:1211.5063; 1e-6 as in torch.nn.utils.clip_grad_norm_.
"""

import numpy as np

from harness.contract import Const, Magnitude, State, hookspec

SHAPES: tuple[dict[str, int], ...] = ({},)

EPSILON = 1e-6
"""Added to the norm: a gradient of zero is not divided by."""


@hookspec
def clip_scale(scale_1: State, sum_1: Const, limit: float) -> None:
    """Overwrite scale_1 with the scale of a gradient whose squares add up to sum_1; keep a NaN in it.

    limit: the largest norm. The scale is computed in double and rounded once, to float32.
    """


def example_settings(dims):
    return {"limit": 0.75}


def example_inputs(rng, dims, settings):
    scale = rng.choice([1.0, 0.37, np.nan], size=1, p=[0.5, 0.3, 0.2])
    near = (settings["limit"] * rng.uniform(0.5, 4)) ** 2
    far = 10 ** rng.uniform(-12, 12)
    found = rng.choice([near, far, 0.0, np.inf, np.nan], size=1, p=[0.4, 0.3, 0.1, 0.1, 0.1])
    return {"scale_1": scale, "sum_1": found}


def reference_forward(scale_1, sum_1, limit):
    if np.isnan(scale_1[0]) or not np.isfinite(sum_1[0]):
        return (np.full(1, np.nan),)
    return (np.minimum(1.0, limit / (np.sqrt(sum_1) + EPSILON)),)


def magnitude_forward(scale_1, sum_1, limit):
    (scale_1,) = reference_forward(scale_1, sum_1, limit)
    # What is below the limit is not clipped at all: exactly one.
    return (Magnitude(np.where(scale_1 < 1, scale_1, 0.0), 1),)


def flops_forward():
    return 4
