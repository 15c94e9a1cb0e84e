"""Memory for what a kernel needs in between: lent by the plan, or else kept from call to call.

A file whose half-op needs some says how much, at the sizes of a call:

    @takes("matmul_cross_entropy_forward")
    def _room(dims, precision, most): return 4 * dims["N"] * dims["V"]

The plan then places that many bytes in its arena, where they share memory with activations that are
not alive during the call. `scratch` hands out what was lent; outside a plan it keeps memory of its own.
"""

import math

import numpy as np

from harness.device import ALIGNMENT, HOST

_needs = {}
_lent = None
_own = None


def takes(*hooks):
    """Mark the function (dims, precision, most) -> bytes that says what these half-ops need."""

    def mark(function):
        _needs.update(dict.fromkeys(hooks, function))
        return function

    return mark


def needed(hook, dims, precision, most):
    """Bytes that a half-op needs; see `scratch_bytes` in harness/device.py."""
    return _needs[hook](dims, precision, most) if hook in _needs else 0


def lend(memory):
    """Use this memory until the next call; None: memory of our own."""
    global _lent
    _lent = memory


def available(otherwise):
    """Bytes that an op which works in pieces may take: all that is lent, or else this many."""
    return otherwise if _lent is None else _lent.nbytes


def room(*shapes, dtype=np.float32):
    """Bytes of arrays of these shapes, each aligned."""
    return sum(_aligned(math.prod(shape) * np.dtype(dtype).itemsize) for shape in shapes)


def scratch(*shapes, dtype=np.float32):
    """An uninitialised array for each shape, all in one piece of memory; the next call overwrites it."""
    memory = _memory(room(*shapes, dtype=dtype))
    arrays, offset = [], 0
    for shape in shapes:
        arrays.append(np.ndarray(shape, dtype, memory, offset))
        offset += room(shape, dtype=dtype)
    return arrays[0] if len(arrays) == 1 else arrays


def _memory(nbytes):
    global _own
    if _lent is not None:
        assert _lent.nbytes >= nbytes, (
            f"{nbytes} bytes of scratch wanted, {_lent.nbytes} were planned"
        )
        return _lent
    if _own is None or _own.nbytes < nbytes:
        _own = HOST.empty(nbytes)
    return _own


def _aligned(nbytes):
    return -(-nbytes // ALIGNMENT) * ALIGNMENT
