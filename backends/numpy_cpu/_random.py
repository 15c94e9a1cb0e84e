"""Words of Philox4x32-10 by their number, and float32 rounded with them to bfloat16 at random.

A block of four words is a row of 64-bit arrays, so that a product and both its halves fit; what each
of the ten rounds reads and writes stays in the cache.
"""

import numpy as np

from backends.numpy_cpu._blocks import BLOCK
from backends.numpy_cpu._scratch import scratch

ROUNDS = 10
MULTIPLIERS = (np.uint64(0xD2511F53), np.uint64(0xCD9E8D57))
KEY_STEPS = (0x9E3779B9, 0xBB67AE85)
WORD = 0xFFFFFFFF
LOW_WORD = np.uint64(WORD)
HIGH_WORD = np.uint64(32)
COUNT = np.arange((BLOCK >> 2) + 1, dtype=np.uint64)

HALF = np.uint32(0xFFFF)
SHIFT = np.uint32(16)
SIZE = np.uint32(0x7FFFFFFF)
SIGN = np.uint32(0x80000000)
MAX_FINITE = np.uint32(0x7F7F)
QUIET = np.uint32(0x40)  # keeps the NaN whose only bits are in the half that is dropped


def random_words(first, count, key_2):
    """The words of numbers first .. first + count - 1; the same memory in every call."""
    start, stop = first >> 2, (first + count + 3) >> 2
    N = stop - start
    c0, c1, c2, c3, a, b = (scratch(f"philox.{i}", (N,), np.uint64) for i in range(6))
    _count_from(start, c0, c1)
    c2.fill(0)
    c3.fill(0)
    k0, k1 = int(key_2[0]) & WORD, int(key_2[1]) & WORD
    for _ in range(ROUNDS):
        np.multiply(c0, MULTIPLIERS[0], out=a)
        np.multiply(c2, MULTIPLIERS[1], out=b)
        np.right_shift(b, HIGH_WORD, out=c0)
        np.bitwise_xor(c0, c1, out=c0)
        np.bitwise_xor(c0, np.uint64(k0), out=c0)
        np.right_shift(a, HIGH_WORD, out=c2)
        np.bitwise_xor(c2, c3, out=c2)
        np.bitwise_xor(c2, np.uint64(k1), out=c2)
        np.bitwise_and(b, LOW_WORD, out=c1)
        np.bitwise_and(a, LOW_WORD, out=c3)
        k0, k1 = (k0 + KEY_STEPS[0]) & WORD, (k1 + KEY_STEPS[1]) & WORD
    words_N4 = scratch("philox.words", (N, 4), np.uint32)
    for i, word_N in enumerate((c0, c1, c2, c3)):
        np.copyto(words_N4[:, i], word_N, casting="unsafe")
    return words_N4.reshape(-1)[first - 4 * start :][:count]


def _count_from(start, low_N, high_N):
    """start, start + 1, ... as their low and high words."""
    np.add(COUNT[: low_N.size], np.uint64(start), out=low_N)
    np.right_shift(low_N, HIGH_WORD, out=high_N)
    np.bitwise_and(low_N, LOW_WORD, out=low_N)


def round_at_random(out_P, x_P, key_2, first):
    """out = x as bfloat16 values, each one of the two beside it."""
    bits_P = x_P.view(np.uint32)
    size_P = scratch("round.size", x_P.shape, np.uint32)
    sign_P = scratch("round.sign", x_P.shape, np.uint32)
    up_P = random_words(first, x_P.size, key_2)
    np.bitwise_and(up_P, HALF, out=up_P)
    np.bitwise_and(bits_P, SIZE, out=size_P)
    np.add(size_P, up_P, out=size_P)
    np.right_shift(size_P, SHIFT, out=size_P)
    np.minimum(size_P, MAX_FINITE, out=size_P)
    np.bitwise_and(bits_P, SIGN, out=sign_P)
    np.right_shift(sign_P, SHIFT, out=sign_P)
    np.bitwise_or(size_P, sign_P, out=size_P)
    finite_P = np.isfinite(x_P, out=scratch("round.finite", x_P.shape, np.bool_))
    if not finite_P.all():
        _keep_special(size_P, x_P, ~finite_P)
    if out_P.dtype == np.float32:
        np.left_shift(size_P, SHIFT, out=out_P.view(np.uint32))
    else:
        np.copyto(out_P.view(np.uint16), size_P, casting="unsafe")


def _keep_special(upper_P, x_P, special_P):
    special = x_P[special_P]
    upper = special.view(np.uint32) >> SHIFT
    upper_P[special_P] = np.where(np.isnan(special), upper | QUIET, upper)
