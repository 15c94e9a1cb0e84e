"""out = round(x)

PyTorch's own conversion, on all its threads: to nearest even.
"""

from harness import hookimpl


@hookimpl
def cast(out_P, x_P):
    out_P.copy_(x_P)
