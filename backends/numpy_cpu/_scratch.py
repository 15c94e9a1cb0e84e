"""Memory for what a computation needs in between, kept from call to call.

An array belongs to the thread that asks and to the name that it asks by, and comes uninitialised. Two
arrays that are alive at once need two names; the next op may use both again.
"""

import threading

import numpy as np

from harness.device import HOST

_kept = threading.local()


def scratch(name, shape, dtype=np.float32):
    """An array of this shape, aligned. A name's memory grows to the largest size asked for."""
    nbytes = np.dtype(dtype).itemsize
    for size in shape:
        nbytes *= size
    memory = _kept.__dict__.get(name)
    if memory is None or memory.nbytes < nbytes:
        memory = _kept.__dict__[name] = HOST.empty(nbytes)
    return np.ndarray(shape, dtype, memory)


def float32(name, x):
    """x itself where it is float32; otherwise a copy of it in scratch."""
    if x.dtype == np.float32:
        return x
    copy = scratch(name, x.shape)
    np.copyto(copy, x)
    return copy


def float32_room(name, out):
    """Where to make in float32 what `out` will hold: out itself, or scratch to be copied to it."""
    return out if out.dtype == np.float32 else scratch(name, out.shape)
