"""out = round(x)

The rounding is done by the store: a memoryview writes a Python float as its own type.
"""

from harness import hookimpl


@hookimpl
def cast(out_P, x_P):
    for p, x in enumerate(x_P):
        out_P[p] = x
