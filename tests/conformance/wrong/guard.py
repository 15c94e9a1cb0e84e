import numpy as np

from tests.conformance.wrong import wrong


@wrong("guard", "infinities are let through", subtle=True)
def nan_alone(scale_1, x_P):
    if np.isnan(x_P).any():
        scale_1[0] = np.nan


@wrong("guard", "by the sum, which large numbers take to infinity")
def by_the_sum(scale_1, x_P):
    if not np.isfinite(x_P.sum(dtype=np.float32)):
        scale_1[0] = np.nan


@wrong("guard", "scale is set to one where all is finite: a NaN of another micro-batch is lost")
def forgets(scale_1, x_P):
    scale_1[0] = 1 if np.isfinite(x_P).all() else np.nan


@wrong("guard", "the last partial tile is left out", subtle=True)
def tail_dropped(scale_1, x_P):
    if not np.isfinite(x_P[: len(x_P) // 32 * 32]).all():
        scale_1[0] = np.nan


@wrong("guard", "the first element alone", subtle=True)
def first_alone(scale_1, x_P):
    if not np.isfinite(x_P[0]):
        scale_1[0] = np.nan
