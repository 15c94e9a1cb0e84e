"""Memory of the device for what an op needs in between: lent by the plan, or else kept between calls.

    @takes("layernorm_backward")
    def _room(dims, precision, most): return room((BLOCKS, dims["C"]))

    sums_BC, = scratch((BLOCKS, C))

The plan places that many bytes in its arena. Outside a plan (conformance, benchmarks) memory of our own
is kept and grows; nothing is taken while a graph is captured.
"""

import math

import numpy as np

from backends.cupy_cuda._machine import machine
from harness.device import ALIGNMENT

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
        arrays.append(machine().view(memory, offset, shape, np.dtype(dtype)))
        offset += room(shape, dtype=dtype)
    return arrays


def _memory(nbytes):
    global _own
    if _lent is not None:
        assert _lent.nbytes >= nbytes, (
            f"{nbytes} bytes of scratch wanted, {_lent.nbytes} were planned"
        )
        return _lent
    if _own is None or _own.nbytes < nbytes:
        _own = machine().view(machine().empty(nbytes), 0, (nbytes,), np.uint8)
    return _own


def _aligned(nbytes):
    return -(-nbytes // ALIGNMENT) * ALIGNMENT
