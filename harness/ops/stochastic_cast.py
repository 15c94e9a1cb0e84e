"""Stochastic cast: the same numbers as bfloat16 values, each rounded up or down at random, unbiased.

    r = the low 16 bits of the random word of element first + p
    out = the float32 whose bits are (bits(x) + r) with the lower 16 set to zero

A number that lies three quarters of the way to the next bfloat16 goes there three times in four: the
mean of out is x. So an update far smaller than a weight's last place is not lost, only rarer.
The word of element i is word i mod 4 of Philox4x32-10 (`harness/contract/philox.py`) with the counter
(i div 4: its low word, its high word, 0, 0): any part of an arena is rounded as within the whole.
Source: Gupta et al. 2015, arXiv:1502.02551; Salmon et al. 2011 (Philox).
"""

import numpy as np

from harness.contract import Const, Ids, Magnitude, Out, hookspec
from harness.contract.philox import words

SHAPES = ({"P": 1 << 20}, {"P": 124_475_904})

MAX_FINITE = np.uint32(0x7F7F0000)


@hookspec
def stochastic_cast(out_P: Out, x_P: Const, key_2: Ids, first: int) -> None:
    """Overwrite out_P with x_P, rounded to bfloat16 values; out_P may be float32 and holds them too.

    x_P: float32. NaN and the infinities stay what they are, and no other number becomes infinite:
    what would is the largest finite bfloat16.
    key_2: the two words of the key, any bits. first: the number of x_P's first element; not negative,
    and a multiple of 4.
    """


def example_settings(dims):
    # At 2^34 elements the counter's high word begins to count.
    return {"first": (0, 4, 1_000, (1 << 34) - 8)[dims["P"] % 4]}


def example_inputs(rng, dims, settings):
    return {"key_2": rng.integers(-(1 << 31), 1 << 31, size=2)}


def round_at_random(x_P, key_2, first):
    """x as bfloat16 values in float32; the formula, bit by bit."""
    x_P = np.ascontiguousarray(x_P, np.float32)
    bits_P = x_P.view(np.uint32)
    up_P = words(first, x_P.size, key_2) & np.uint32(0xFFFF)
    sign_P, size_P = bits_P & np.uint32(0x80000000), bits_P & np.uint32(0x7FFFFFFF)
    size_P = np.minimum((size_P + up_P) & np.uint32(0xFFFF0000), MAX_FINITE)
    return np.where(np.isfinite(x_P), (sign_P | size_P).view(np.float32), x_P)


def reference_forward(x_P, key_2, first):
    return (round_at_random(x_P, key_2, first).astype(np.float64),)


def magnitude_forward(x_P):
    # The bits are given: nothing may differ.
    return (Magnitude(np.zeros(x_P.shape), 1),)


def flops_forward(P):
    return 0
