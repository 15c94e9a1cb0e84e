"""out = round(x)        to nearest even, between float32 and bfloat16 either way

A block takes 1,024 elements at a time, a thread four of them (`_fours.py`). `put` rounds, as every op's
stores do.
"""

from numba import cuda

from backends.numba_cuda._fours import FOUR, first_element, four, launch_fours, put, stride
from harness import hookimpl


@hookimpl
def cast(out_P, x_P):
    launch_fours(_cast, out_P.size, out_P, x_P)


@cuda.jit
def _cast(out_P, x_P):
    for p in range(first_element(), out_P.size, stride()):
        x = four(x_P, p)
        for k in range(FOUR):
            put(out_P, p, k, x[k])
