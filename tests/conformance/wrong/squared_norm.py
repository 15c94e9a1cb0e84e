import numpy as np

from tests.conformance.honest import tiles
from tests.conformance.wrong import wrong
from tests.conformance.wrong.rounding import as_half


@wrong("squared_norm", "chunks of 16; the last partial one is left out", subtle=True)
def tail_dropped(sum_1, x_P):
    whole = x_P[: len(x_P) // 16 * 16]
    sum_1[0] = np.dot(whole, whole)


@wrong("squared_norm", "added to sum: relies on a zero there", subtle=True)
def sum_added_to(sum_1, x_P):
    sum_1[0] += np.dot(x_P, x_P)


@wrong("squared_norm", "the norm itself, not its square")
def root_taken(sum_1, x_P):
    sum_1[0] = np.sqrt(np.dot(x_P, x_P))


@wrong("squared_norm", "summed in float16")
def half_sums(sum_1, x_P):
    total = np.float32(0)
    for chunk in tiles(len(x_P), 64):
        total = as_half(np.add(total, np.dot(x_P[chunk], x_P[chunk])))
    sum_1[0] = total


@wrong("squared_norm", "the sum of magnitudes")
def magnitudes(sum_1, x_P):
    sum_1[0] = np.abs(x_P).sum()


@wrong("squared_norm", "the mean of squares")
def mean_taken(sum_1, x_P):
    sum_1[0] = np.mean(x_P * x_P)


@wrong("squared_norm", "a block's sum counted twice where its last thread comes early", subtle=True)
def last_block_twice(sum_1, x_P):
    sum_1[0] = np.dot(x_P, x_P)
    rest = x_P[len(x_P) // 256 * 256 :]
    sum_1[0] += np.dot(rest, rest)
