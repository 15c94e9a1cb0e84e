"""Shared and local memory of a block's threads: never what it held before, as on a GPU, but NaN."""

from functools import lru_cache

import numpy as np
from numba.cuda.simulator import kernelapi

from backends.numba_cuda.simulator.arrays import LOCAL, SHARED, here, line_of, named, of_kernel
from harness.errors import PluginError

POISON = 0xFF
"""Of every byte: NaN in floats, -1 in integers."""

MAX_SHARED_BYTES = 48 << 10
"""Of arrays whose size is in the source; the compiler for GPUs refuses more."""


class Shared:
    """Shared memory of one block: an array for each call that asks for one."""

    def __init__(self, dynamic_bytes, watchers):
        self._dynamic = np.full(dynamic_bytes, POISON, np.uint8)
        self._watchers = watchers
        self._arrays = {}
        self._lines = {}

    def array(self, shape, dtype, alignment=None):
        dtype, label = _dtype(dtype), here()
        if shape == 0:
            whole = self._dynamic[: self._dynamic.size // dtype.itemsize * dtype.itemsize]
            return of_kernel(whole.view(dtype), label, SHARED, self._watchers)
        array = self._arrays.get(label)
        if array is None:
            array = self._arrays[label] = self._new(shape, dtype, label)
        return array

    def _new(self, shape, dtype, label):
        code, instruction = label
        line = code, line_of(code, instruction)
        if self._lines.setdefault(line, label) != label:
            raise PluginError(
                f"two shared arrays are asked for on one line, {line[1]} of {code.co_filename}",
                slug="kernel-shared-memory",
                effect="Numba's own simulator makes one array of them, and a GPU two",
                do="write them on two lines",
            )
        array = of_kernel(_poisoned(shape, dtype), label, SHARED, self._watchers)
        taken = array.nbytes + sum(other.nbytes for other in self._arrays.values())
        if taken > MAX_SHARED_BYTES:
            raise PluginError(
                f"{taken} bytes of shared memory with {named(array)}: {MAX_SHARED_BYTES} is the most",
                slug="kernel-shared-memory",
                do="make it smaller, or dynamic: shape 0, and its bytes at the launch",
            )
        return array


class Local:
    """Memory of one thread, whose indices are looked at in a strict mode; else by NumPy alone."""

    def __init__(self, strict):
        self._strict = strict

    def array(self, shape, dtype, alignment=None):
        array = _poisoned(shape, _dtype(dtype))
        return of_kernel(array, here(), LOCAL, ()) if self._strict else array


@lru_cache(256, typed=True)
def _pattern(shape, dtype):
    """An array that holds nothing else. Never written: a copy of it takes a third of the time."""
    array = np.empty(shape, dtype)
    array.reshape(-1).view(np.uint8).fill(POISON)
    return array


def _poisoned(shape, dtype):
    return _pattern(shape, dtype).copy()


@lru_cache(256, typed=True)
def _dtype(dtype):
    if isinstance(dtype, kernelapi.types.Type):
        return kernelapi.numpy_support.as_dtype(dtype)
    return np.dtype(dtype)
