"""out = x, its lower 16 bits rounded up or down at random

A block after another (`_random.py`): its random words take ten rounds of ten ufuncs, and the rounding
another ten. That is the price of saying randomness by its number in NumPy.
"""

from backends.numpy_cpu._blocks import in_blocks_on_all_cores
from backends.numpy_cpu._random import round_at_random
from harness import hookimpl


@hookimpl
def stochastic_cast(out_P, x_P, key_2, first):
    def block(run):
        round_at_random(out_P[run], x_P[run], key_2, first + run.start)

    in_blocks_on_all_cores(block, x_P.size)
