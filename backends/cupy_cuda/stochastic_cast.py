"""out = x rounded to a bfloat16 value, up or down at random: the float32 whose bits are (bits(x) + r),
the lower 16 set to zero, with r the low 16 bits of a Philox word

A thread makes the four words of its four elements in one go (cuda/philox.cuh); nothing is kept between
calls, and any part of an arena is rounded as within the whole.
"""

from backends.cupy_cuda._launch import THREADS, blocks_for, i64
from backends.cupy_cuda.cast import SOURCE, from_to
from harness import hookimpl


@hookimpl
def stochastic_cast(out_P, x_P, key_2, first):
    arguments = (out_P, x_P, key_2, i64(first), i64(x_P.size))
    blocks = blocks_for(x_P.size // 4 + 1)
    SOURCE.launch("stochastic_cast", from_to(x_P, out_P), blocks, THREADS, *arguments)
