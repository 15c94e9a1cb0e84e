import numpy as np

from tests.conformance.honest import honest, tiles


@honest("guard", "what is finite, counted")
def guard(scale_1, x_P):
    if np.count_nonzero(np.isfinite(x_P)) < len(x_P):
        scale_1[0] = np.nan


@honest("guard", "tile after tile, by x - x, which is zero or NaN")
def by_tiles(scale_1, x_P):
    for tile in tiles(len(x_P), 64):
        with np.errstate(invalid="ignore"):
            found = np.isnan(x_P[tile] - x_P[tile]).any()
        if found:
            scale_1[0] = np.nan


@honest("guard", "by the bits of the exponent")
def by_bits(scale_1, x_P):
    if (x_P.view(np.uint32) & 0x7F800000 == 0x7F800000).any():
        scale_1.view(np.uint32)[0] = 0x7FC00000
