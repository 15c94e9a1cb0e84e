"""Memory for what a computation needs in between, kept from call to call.

An array belongs to the thread that asks and to the name it asks by, and is uninitialised. Two arrays
that are needed at once need two names; the next op is free to use both again.
"""

import threading

import numpy as np

from harness.device import HOST

_kept = threading.local()


def scratch(name, shape, dtype=np.float32):
    """An uninitialised, aligned array of this shape; the memory grows to the largest asked for."""
    nbytes = np.dtype(dtype).itemsize
    for size in shape:
        nbytes *= size
    memories = _kept.__dict__
    memory = memories.get(name)
    if memory is None or memory.nbytes < nbytes:
        memory = memories[name] = HOST.empty(nbytes)
    return np.ndarray(shape, dtype, memory)


def float32(name, x):
    """x itself where it is float32; otherwise a copy in the scratch array of this name."""
    if x.dtype == np.float32:
        return x
    copy = scratch(name, x.shape)
    np.copyto(copy, x)
    return copy
