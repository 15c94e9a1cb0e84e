import numpy as np

from tests.conformance.honest import clip_scale as honest
from tests.conformance.wrong import wrong


@wrong("clip_scale", "a gradient that is short is made longer", subtle=True)
def never_one(scale_1, sum_1, limit):
    honest.clip_scale(scale_1, sum_1, limit)
    if np.isfinite(scale_1[0]):
        scale_1[0] = limit / (np.sqrt(float(sum_1[0])) + 1e-6)


@wrong("clip_scale", "what the guard has found is overwritten", subtle=True)
def forgets_the_guard(scale_1, sum_1, limit):
    scale_1[0] = 1
    honest.clip_scale(scale_1, sum_1, limit)


@wrong("clip_scale", "the root is not taken")
def by_the_square(scale_1, sum_1, limit):
    if np.isfinite(scale_1[0]):
        scale_1[0] = min(1.0, limit / (float(sum_1[0]) + 1e-6))


@wrong("clip_scale", "an infinite norm clips to zero, and the update is made", subtle=True)
def infinity_clips_to_zero(scale_1, sum_1, limit):
    if np.isinf(sum_1[0]) and np.isfinite(scale_1[0]):
        scale_1[0] = 0
    else:
        honest.clip_scale(scale_1, sum_1, limit)


@wrong("clip_scale", "fmin, which prefers a number to a NaN", subtle=True)
def fmin(scale_1, sum_1, limit):
    with np.errstate(all="ignore"):
        scale_1[0] = np.fmin(1.0, limit / (np.sqrt(float(sum_1[0])) + 1e-6))
