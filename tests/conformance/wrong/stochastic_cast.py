import numpy as np

from harness.contract.philox import words
from tests.conformance.honest.stochastic_cast import rounded, store
from tests.conformance.wrong import wrong


def bits_of(first, count, key_2):
    return words(first, count, key_2) & np.uint32(0xFFFF)


@wrong("stochastic_cast", "counts from 0 in every slice", subtle=True)
def from_zero(out_P, x_P, key_2, first):
    store(out_P, rounded(x_P, bits_of(0, x_P.size, key_2)))


@wrong("stochastic_cast", "the upper half of the random word, not the lower")
def upper_half(out_P, x_P, key_2, first):
    store(out_P, rounded(x_P, words(first, x_P.size, key_2) >> np.uint32(16)))


@wrong("stochastic_cast", "the counter's high word stays 0 beyond 2^34 elements", subtle=True)
def counter_of_32_bits(out_P, x_P, key_2, first):
    before = max(0, min(x_P.size, (1 << 34) - first))
    up = bits_of(first, x_P.size, key_2)
    up[before:] = bits_of(0, x_P.size, key_2)[: x_P.size - before]
    store(out_P, rounded(x_P, up))


@wrong("stochastic_cast", "to nearest: the random word is not looked at")
def to_nearest(out_P, x_P, key_2, first):
    store(out_P, rounded(x_P, np.full(x_P.shape, 0x8000, np.uint32)))


@wrong("stochastic_cast", "towards zero: the lower half cut off")
def cut_off(out_P, x_P, key_2, first):
    store(out_P, rounded(x_P, np.zeros(x_P.shape, np.uint32)))


@wrong("stochastic_cast", "the second word of the key is not used: each update draws the same")
def half_a_key(out_P, x_P, key_2, first):
    store(out_P, rounded(x_P, bits_of(first, x_P.size, np.array([key_2[0], 0]))))
