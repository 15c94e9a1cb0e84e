"""A backend's workspace: memory for what its ops need in between, lent by the plan.

A file whose half-op needs some says how much, at the sizes of a call, and asks for that in the call:

    @takes("matmul_cross_entropy_forward")
    def _room(dims, precision, most): return room((dims["N"], dims["V"]))

    (logits_NV,) = scratch((N, V))

The plan places that many bytes in its arena, where they share memory with activations that are not alive
during the call. Outside a plan (conformance, benchmarks) memory of the backend's own is kept, and grows.
"""

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from harness.contract import Shape
from harness.device.hooks import aligned

Needs = Callable[[Mapping[str, int], str, int], int]
"""(dims, precision, most) -> bytes; see `scratch_bytes` in harness/device/hooks.py."""


def room(*shapes: Shape, dtype: Any = np.float32) -> int:
    """Bytes of arrays of these shapes, each aligned."""
    return sum(aligned(math.prod(shape) * np.dtype(dtype).itemsize) for shape in shapes)


class Workspace:
    """A backend's workspace. empty, view: how it takes memory, and sees part of it as an array."""

    def __init__(self, empty: Callable[[int], Any], view: Callable[..., Any]) -> None:
        self._empty, self._view = empty, view
        self._needs: dict[str, Needs] = {}
        self._lent: Any = None
        self._own: Any = None

    def takes(self, *hooks: str) -> Callable[[Needs], Needs]:
        """Mark the function that says what these half-ops need."""

        def mark(function: Needs) -> Needs:
            self._needs.update(dict.fromkeys(hooks, function))
            return function

        return mark

    def needed(self, hook: str, dims: Mapping[str, int], precision: str, most: int) -> int:
        """Bytes that a half-op needs: what the hook `scratch_bytes` answers."""
        return self._needs[hook](dims, precision, most) if hook in self._needs else 0

    def lend(self, memory: Any) -> None:
        """Use this memory until the next call, or None: the hook `lend_scratch`."""
        self._lent = memory

    def forget(self) -> None:
        """Give back the memory of the backend's own."""
        self._own = None

    def available(self, otherwise: int) -> int:
        """Bytes that an op which works in pieces may take: all that is lent, or else this many."""
        return otherwise if self._lent is None else int(self._lent.nbytes)

    def scratch(self, *shapes: Shape, dtype: Any = np.float32) -> list[Any]:
        """An uninitialised array for each shape; the next call overwrites them."""
        memory = self._memory(room(*shapes, dtype=dtype))
        arrays, offset = [], 0
        for shape in shapes:
            arrays.append(self._view(memory, offset, shape, np.dtype(dtype)))
            offset += room(shape, dtype=dtype)
        return arrays

    def _memory(self, nbytes: int) -> Any:
        if self._lent is not None:
            assert self._lent.nbytes >= nbytes, (
                f"{nbytes} bytes of scratch wanted, {self._lent.nbytes} were planned"
            )
            return self._lent
        if self._own is None or self._own.nbytes < nbytes:
            self._own = self._view(self._empty(nbytes), 0, (nbytes,), np.dtype(np.uint8))
        return self._own
