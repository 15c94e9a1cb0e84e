"""out = x rounded to a bfloat16 value, up or down at random: the float32 whose bits are (bits(x) + r),
the lower 16 set to zero, with r the low 16 bits of a Philox word

A block takes 1,024 elements at a time, a thread four of them (`_fours.py`). The threads make the words
of such a tile together (`_random.py`), while its elements are on their way.
"""

import numpy as np
from numba import cuda

from backends.numba_cuda._fours import FOUR, TILE, four, launch_fours, put, stride
from backends.numba_cuda._launch import THREADS
from backends.numba_cuda._random import make_words, round_at_random
from harness import hookimpl


@hookimpl
def stochastic_cast(out_P, x_P, key_2, first):
    launch_fours(_round, out_P.size, out_P, x_P, key_2, first)


@cuda.jit
def _round(out_P, x_P, key_2, first):
    words = cuda.shared.array(TILE, np.uint32)
    thread = cuda.threadIdx.x
    for start in range(cuda.blockIdx.x * TILE, out_P.size, stride()):
        p = start + thread
        x = four(x_P, p)
        make_words(words, first + start, key_2)
        for k in range(FOUR):
            put(out_P, p, k, round_at_random(x[k], words[thread + k * THREADS]))
