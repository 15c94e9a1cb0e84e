import numpy as np

from harness.contract.philox import words
from tests.conformance.honest import honest
from tests.conformance.honest.cast import BF16


def store(out_P, bits_P):
    """Float32 of these bits, whose lower 16 are zero, in either dtype."""
    if out_P.dtype == BF16:
        out_P.view(np.uint16)[...] = bits_P >> np.uint32(16)
    else:
        out_P.view(np.uint32)[...] = bits_P


def rounded(x_P, up_P):
    bits = x_P.view(np.uint32)
    sign, size = bits & np.uint32(1 << 31), bits & np.uint32(0x7FFFFFFF)
    near = np.minimum((size + up_P) & np.uint32(0xFFFF0000), np.uint32(0x7F7F0000))
    return np.where(np.isfinite(x_P), sign | near, bits)


@honest("stochastic_cast", "the 16 bits added, and the lower half cut off")
def stochastic_cast(out_P, x_P, key_2, first):
    store(out_P, rounded(x_P, words(first, x_P.size, key_2) & np.uint32(0xFFFF)))


@honest("stochastic_cast", "a comparison of the lower half with the random bits")
def by_comparison(out_P, x_P, key_2, first):
    up = words(first, x_P.size, key_2) & np.uint32(0xFFFF)
    bits = x_P.view(np.uint32)
    rest = bits & np.uint32(0xFFFF)
    carried = (rest + up >= 1 << 16).astype(np.uint32) << np.uint32(16)
    grown = (bits & np.uint32(0xFFFF0000)) + carried
    infinite = (grown & np.uint32(0x7FFFFFFF)) == np.uint32(0x7F800000)
    near = np.where(infinite, grown - np.uint32(1 << 16), grown)
    store(out_P, np.where(np.isfinite(x_P), near, bits))
