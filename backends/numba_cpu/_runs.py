"""Loops over a run of contiguous numbers, which the compiler takes eight or sixteen at a time.

A run is a row, or a part of one: `x_NC[n, left:right]`. Of a slice in two dimensions the compiler does
not know that its rows are contiguous, and takes one number at a time.
"""

from backends.numba_cpu._kernel import helper
from backends.numba_cpu._narrow import narrow, wide


@helper
def copy_run(out_R, x_R):
    """out = x, from and to either dtype."""
    for r in range(x_R.size):
        out_R[r] = narrow(out_R, wide(x_R[r]))


@helper
def add_run(sum_R, x_R):
    """sum += x. sum is float32."""
    for r in range(x_R.size):
        sum_R[r] += wide(x_R[r])


@helper
def fill_run(out_R, number):
    """Every number is this one. out is float32."""
    for r in range(out_R.size):
        out_R[r] = number
