"""out = x, its lower 16 bits rounded up or down at random

The random word of each number by itself: three of the four of its block are made for nothing.
"""

from backends.python_loops._random import rounded_at_random
from harness import hookimpl


@hookimpl
def stochastic_cast(out_P, x_P, key_2, first):
    for p, x in enumerate(x_P):
        out_P[p] = rounded_at_random(x, first + p, key_2)
