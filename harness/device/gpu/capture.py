"""Capture a graph of CUDA: what both backends do around it.

How a stream is recorded, and how memory that is taken meanwhile is noticed, is each backend's own.
"""

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def no_garbage_collected() -> Iterator[None]:
    """Collect garbage now, and none while the `with` is open."""
    gc.collect()  # now: garbage that is found in a capture would give memory back in it
    collecting = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collecting:
            gc.enable()


def nothing() -> None:
    """The capture of no calls: there is nothing to launch."""
