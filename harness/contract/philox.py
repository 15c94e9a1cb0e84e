"""Random words by their number: Philox4x32-10, the reference that every backend's generator equals.

A block of four 32-bit words is a function of its counter and a key, and of nothing drawn before: any
part of an arena can be made by itself, on any device, in any order.
Source: Salmon, Moraes, Dror and Shaw 2011, "Parallel random numbers: as easy as 1, 2, 3".
"""

import numpy as np

ROUNDS = 10
MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
KEY_STEPS = (0x9E3779B9, 0xBB67AE85)

LOW_WORD = np.uint64(0xFFFFFFFF)
WORD_BITS = np.uint64(32)


def philox_4x32(counter_4N: np.ndarray, key_2: np.ndarray) -> np.ndarray:
    """The four words of each counter, uint32 of shape (4, N).

    counter_4N: the four words of each counter, the lowest first. key_2: two words, of any integers.
    """
    c0, c1, c2, c3 = (np.asarray(word).astype(np.uint32).astype(np.uint64) for word in counter_4N)
    k0, k1 = (int(word) & 0xFFFFFFFF for word in key_2)
    m0, m1 = (np.uint64(multiplier) for multiplier in MULTIPLIERS)
    for _ in range(ROUNDS):
        product0, product1 = m0 * c0, m1 * c2
        c0, c2 = (
            (product1 >> WORD_BITS) ^ c1 ^ np.uint64(k0),
            (product0 >> WORD_BITS) ^ c3 ^ np.uint64(k1),
        )
        c1, c3 = product1 & LOW_WORD, product0 & LOW_WORD
        k0, k1 = (k0 + KEY_STEPS[0]) & 0xFFFFFFFF, (k1 + KEY_STEPS[1]) & 0xFFFFFFFF
    return np.stack([c0, c1, c2, c3]).astype(np.uint32)


def words(first: int, count: int, key_2: np.ndarray) -> np.ndarray:
    """The words of elements first .. first + count - 1, as uint32.

    Element i has word i mod 4 of the block whose counter is i div 4.
    """
    start, stop = first >> 2, (first + count + 3) >> 2
    block_N = np.arange(start, stop, dtype=np.uint64)
    zero_N = np.zeros(block_N.size, np.uint64)
    counter_4N = np.stack([block_N & LOW_WORD, block_N >> WORD_BITS, zero_N, zero_N])
    flat = philox_4x32(counter_4N, key_2).T.reshape(-1)
    return flat[first - 4 * start :][:count]
