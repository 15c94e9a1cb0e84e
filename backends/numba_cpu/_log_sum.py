"""log Σ_v exp(x[v]) of numbers that come a piece at a time, and the gradient of it.

    top, total = take_in(x_V, top, total)        total is the sum of exp(x - top) so far

Where top rises, what was summed before is scaled down.
"""

import numpy as np

from backends.numba_cpu._exp import exp
from backends.numba_cpu._exp_low import exp_low
from backends.numba_cpu._kernel import helper
from backends.numba_cpu._narrow import wide
from backends.numba_cpu._order import key, value

# Not -inf: numbers that are all -inf would then give inf - inf.
LOWEST = np.finfo(np.float32).min
ZERO = np.float32(0)
PIECE = 1024
"""Numbers whose maximum and sum are taken in turn: 4 KiB stay in the first cache."""


@helper
def take_in(x_V, top, total):
    """The running (top, total) with these numbers among them."""
    for first in range(0, x_V.size, PIECE):
        top, total = _take_piece(x_V[first : min(first + PIECE, x_V.size)], top, total)
    return top, total


@helper
def _take_piece(x_V, top, total):
    largest = key(top)
    for v in range(x_V.size):
        largest = max(largest, key(wide(x_V[v])))
    higher = value(largest)
    here = ZERO
    for v in range(x_V.size):
        here += exp(wide(x_V[v]) - higher)
    return higher, total * exp(top - higher) + here


@helper
def weigh(x_V, lse, factor):
    """x = factor · exp(x - lse), in place."""
    for v in range(x_V.size):
        x_V[v] = factor * exp_low(x_V[v] - lse)
