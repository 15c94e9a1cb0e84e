import numpy as np

from tests.conformance.honest import honest, tiles


@honest("squared_norm", "a dot product with itself")
def squared_norm(sum_1, x_P):
    sum_1[0] = np.dot(x_P, x_P)


@honest("squared_norm", "chunks of 1000, their sums added in float32")
def by_chunks(sum_1, x_P):
    sum_1[0] = 0
    for chunk in tiles(len(x_P), 1000):
        sum_1[0] += np.sum(x_P[chunk] * x_P[chunk])


@honest("squared_norm", "one square after another in float32")
def sequential(sum_1, x_P):
    sum_1[0] = np.cumsum(x_P * x_P, dtype=np.float32)[-1]


@honest("squared_norm", "pairwise in float64")
def in_double(sum_1, x_P):
    sum_1[0] = np.sum(x_P.astype(np.float64) ** 2)
