"""Words of Philox4x32-10 by their number, and float32 rounded with them to bfloat16 at random.

A block of four words serves four numbers, and nothing is kept from one block to the next.
"""

import numpy as np
from numba import types
from numba.extending import overload

from backends.numba_cpu._kernel import EXACT, exact

ROUNDS = 10
M0, M1 = np.uint64(0xD2511F53), np.uint64(0xCD9E8D57)
W0, W1 = np.uint32(0x9E3779B9), np.uint32(0xBB67AE85)
TWO, THIRTY_TWO = np.uint64(2), np.uint64(32)
LOW_WORD = np.uint64(0xFFFFFFFF)

HALF = np.uint32(0xFFFF)
SHIFT = np.uint32(16)
SIZE = np.uint32(0x7FFFFFFF)
SIGN = np.uint32(0x80000000)
INFINITE = np.uint32(0x7F800000)
MAX_FINITE = np.uint32(0x7F7F)
QUIET = np.uint32(0x40)  # keeps the NaN whose only bits are in the half that is dropped


@exact
def random_block(block, k0, k1):
    """The four words of a block. block: its number, uint64; k0, k1: the key, uint32."""
    c0, c1 = np.uint32(block & LOW_WORD), np.uint32(block >> THIRTY_TWO)
    c2, c3 = np.uint32(0), np.uint32(0)
    for _ in range(ROUNDS):
        a, b = M0 * np.uint64(c0), M1 * np.uint64(c2)
        c0 = np.uint32(np.uint32(b >> THIRTY_TWO) ^ c1 ^ k0)
        c1 = np.uint32(b & LOW_WORD)
        c2 = np.uint32(np.uint32(a >> THIRTY_TWO) ^ c3 ^ k1)
        c3 = np.uint32(a & LOW_WORD)
        k0, k1 = np.uint32(k0 + W0), np.uint32(k1 + W1)
    return c0, c1, c2, c3


@exact
def random_run(out_R, x_R, key, first):
    """out = x as bfloat16 values, each one of the two beside it. first: of x_R, a multiple of 4."""
    k0, k1 = key
    block = np.uint64(first) >> TWO
    whole = x_R.size // 4
    for n in range(whole):
        w0, w1, w2, w3 = random_block(block + np.uint64(n), k0, k1)
        out_R[4 * n] = held(out_R, _rounded(x_R[4 * n], w0))
        out_R[4 * n + 1] = held(out_R, _rounded(x_R[4 * n + 1], w1))
        out_R[4 * n + 2] = held(out_R, _rounded(x_R[4 * n + 2], w2))
        out_R[4 * n + 3] = held(out_R, _rounded(x_R[4 * n + 3], w3))
    words = random_block(block + np.uint64(whole), k0, k1)
    for i in range(x_R.size - 4 * whole):
        out_R[4 * whole + i] = held(out_R, _rounded(x_R[4 * whole + i], words[i]))


@exact
def _rounded(x, word):
    bits = np.float32(x).view(np.uint32)
    size = np.uint32(bits & SIZE)
    sign = np.uint32(np.uint32(bits & SIGN) >> SHIFT)
    near = np.uint32(np.uint32(size + np.uint32(word & HALF)) >> SHIFT)
    upper = min(near, MAX_FINITE)
    if size >= INFINITE:
        upper = np.uint32(size >> SHIFT)
        if size > INFINITE:
            upper = np.uint32(upper | QUIET)
    return np.uint32(sign | upper)


def held(buffer, upper):
    """The upper half of a float32 as the buffer holds numbers."""
    raise NotImplementedError("called from compiled code only")


@overload(held, inline="always", jit_options={"fastmath": EXACT})
def _held(buffer, upper):
    if buffer.dtype == types.uint16:
        return lambda buffer, upper: np.uint16(upper)
    return lambda buffer, upper: np.uint32(np.uint32(upper) << SHIFT).view(np.float32)


def key_of(key_2):
    """The two words of a key as kernels take them."""
    return np.uint32(int(key_2[0]) & 0xFFFFFFFF), np.uint32(int(key_2[1]) & 0xFFFFFFFF)
