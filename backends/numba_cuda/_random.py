"""Words of Philox4x32-10 by their number, and float32 rounded with them to bfloat16 at random.

    words = cuda.shared.array(TILE, np.uint32)           in the kernel, on a line of its own
    make_words(words, first, key_2)                      every thread of the block calls it
    word = words[cuda.threadIdx.x + k * THREADS]         of the k-th of a thread's four

Ten rounds make four words, of four elements side by side, and a thread's four lie a block apart
(`_fours.py`). So each thread makes four words of the tile, and finds its own in shared memory.
Source: Salmon, Moraes, Dror and Shaw 2011, "Parallel random numbers: as easy as 1, 2, 3".
"""

import numpy as np
from numba import cuda

from backends.numba_cuda._fours import FOUR

ROUNDS = 10
M0, M1 = np.uint64(0xD2511F53), np.uint64(0xCD9E8D57)
W0, W1 = np.uint64(0x9E3779B9), np.uint64(0xBB67AE85)
TWO, THIRTY_TWO = np.uint64(2), np.uint64(32)
LOW_WORD = np.uint64(0xFFFFFFFF)

HALF = np.uint32(0xFFFF)
UPPER = np.uint32(0xFFFF0000)
INFINITE = np.uint32(0x7F800000)
LAST_PLACE = np.uint32(0x10000)  # of a bfloat16, in the bits of a float32


@cuda.jit(device=True)
def make_words(words, first, key_2):
    """The words of as many elements as `words` is long. first: of them, a multiple of 4."""
    thread = cuda.threadIdx.x
    block = (np.uint64(first) >> TWO) + np.uint64(thread)
    cuda.syncthreads()  # words of the tile before may still be read
    k0, k1 = np.uint64(key_2[0]) & LOW_WORD, np.uint64(key_2[1]) & LOW_WORD
    c0, c1, c2, c3 = random_block(block, k0, k1)
    words[FOUR * thread] = c0
    words[FOUR * thread + 1] = c1
    words[FOUR * thread + 2] = c2
    words[FOUR * thread + 3] = c3
    cuda.syncthreads()


@cuda.jit(device=True)
def random_block(block, k0, k1):
    """The four words of a block, by its number. Within, all are uint64, so that a product is whole."""
    c0, c1 = block & LOW_WORD, block >> THIRTY_TWO
    c2 = c3 = np.uint64(0)
    for _ in range(ROUNDS):
        a, b = M0 * c0, M1 * c2
        c0 = (b >> THIRTY_TWO) ^ c1 ^ (k0 & LOW_WORD)
        c1 = b & LOW_WORD
        c2 = (a >> THIRTY_TWO) ^ c3 ^ (k1 & LOW_WORD)
        c3 = a & LOW_WORD
        k0, k1 = k0 + W0, k1 + W1
    return np.uint32(c0), np.uint32(c1), np.uint32(c2), np.uint32(c3)


@cuda.jit(device=True)
def round_at_random(x, word):
    """x as a bfloat16 value, up or down; NaN and infinity stay, and no other becomes infinite."""
    bits = np.float32(x).view(np.uint32)
    near = np.uint32(np.uint32(bits + np.uint32(word & HALF)) & UPPER)
    beyond = np.uint32(near & INFINITE) == INFINITE
    rounded = np.uint32(near - LAST_PLACE if beyond else near)
    return x if np.uint32(bits & INFINITE) == INFINITE else rounded.view(np.float32)
