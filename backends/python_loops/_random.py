"""Words of Philox4x32-10 by their number, and a float32 rounded with one: integers of any size do it.

Products have 64 bits and are cut into a high and a low word; everything else is cut to 32 bits.
"""

import math
import struct

WORD = 0xFFFFFFFF
ROUNDS = 10


def random_word(number, key_2):
    """Word number mod 4 of block number div 4."""
    block = number >> 2
    c0, c1, c2, c3 = block & WORD, block >> 32, 0, 0
    k0, k1 = key_2[0] & WORD, key_2[1] & WORD
    for _ in range(ROUNDS):
        a, b = 0xD2511F53 * c0, 0xCD9E8D57 * c2
        c0, c1, c2, c3 = (b >> 32) ^ c1 ^ k0, b & WORD, (a >> 32) ^ c3 ^ k1, a & WORD
        k0, k1 = (k0 + 0x9E3779B9) & WORD, (k1 + 0xBB67AE85) & WORD
    return (c0, c1, c2, c3)[number & 3]


def rounded_at_random(x, number, key_2):
    """A float32 as one of the two bfloat16 beside it."""
    if not math.isfinite(x):
        return x
    (bits,) = struct.unpack("<I", struct.pack("<f", x))
    sign, size = bits & 0x80000000, bits & 0x7FFFFFFF
    size = min((size + (random_word(number, key_2) & 0xFFFF)) & 0xFFFF0000, 0x7F7F0000)
    return struct.unpack("<f", struct.pack("<I", sign | size))[0]
