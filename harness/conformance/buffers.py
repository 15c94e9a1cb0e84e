"""Lay the buffers of a case in one block of memory, each between guard bands.

What is read before it is written is NaN (every byte 0xFF), and so is what is read beyond a buffer's end,
though another NaN for each: a copy that runs on behind both its ends is found. Whatever changes outside
the outputs is found by comparing the block before and after.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from harness.contract import Acc, Half, State
from harness.device import ALIGNMENT

POISON = 0xFF
GUARD = 256
"""Bytes between two buffers at least: a wave of 64 threads that runs one step too far is seen."""


@dataclass(frozen=True)
class Place:
    """Where one buffer lies in the block."""

    name: str
    start: int
    stop: int
    shape: tuple[int, ...]
    dtype: np.dtype

    def of(self, block: np.ndarray) -> np.ndarray:
        """This buffer's bytes of a block, as an array; no copy."""
        return block[self.start : self.stop].view(self.dtype).reshape(self.shape)


@dataclass(frozen=True)
class Layout:
    """The places of a case's buffers, and the block as it is before the call.

    places: name -> place; a buffer that is left out has none, and one that is aliased shares one.
    written: names of the buffers that may change.
    """

    places: dict[str, Place]
    before: np.ndarray
    written: tuple[str, ...]

    def changed_outside(self, after: np.ndarray) -> np.ndarray:
        """The offsets of bytes that changed and were not the op's to change."""
        expected = self.before.copy()
        for name in self.written:
            place = self.places[name]
            expected[place.start : place.stop] = after[place.start : place.stop]
        if np.array_equal(expected, after):
            return np.empty(0, np.int64)
        return np.flatnonzero(expected != after)

    def owner(self, offset: int) -> tuple[Place, int]:
        """The buffer that is nearest to an offset, and how far outside of it (0: inside)."""

        def outside(place: Place) -> int:
            return max(place.start - offset, offset - place.stop + 1, 0)

        nearest = min(self.places.values(), key=outside)
        return nearest, outside(nearest)


def lay_out(
    half: Half,
    shape_and_dtype: Callable[[str], tuple[tuple[int, ...], np.dtype]],
    initial: dict[str, np.ndarray | None],
    without: tuple[str, ...],
    alias: tuple[str, str] | None,
) -> Layout:
    """initial: what inputs, `State` and `Acc` buffers hold; other outputs are poisoned."""
    places: dict[str, Place] = {}
    offset = GUARD
    for argument in half.signature.buffers:
        if argument.name in without or (alias and argument.name == alias[0]):
            continue
        shape, dtype = shape_and_dtype(argument.name)
        stop = offset + int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
        places[argument.name] = Place(argument.name, offset, stop, shape, dtype)
        offset = -(-(stop + GUARD) // ALIGNMENT) * ALIGNMENT
    before = np.full(offset, POISON, np.uint8)
    for number, place in enumerate(places.values(), 1):
        # 0xFFFE, 0xFFFD, ...: NaN as float32 and as bfloat16.
        before[place.stop : place.stop + GUARD].view(np.uint16)[:] = 0xFFFF - number
    if alias:
        shared = places[alias[1]]
        places[alias[0]] = Place(alias[0], shared.start, shared.stop, shared.shape, shared.dtype)
    for argument in half.signature.buffers:
        value = initial.get(argument.name)
        holds = not half.signature.writes(argument) or argument.role in (Acc, State)
        if value is not None and holds and argument.name in places:
            place = places[argument.name]
            before[place.start : place.stop] = np.ascontiguousarray(value).view(np.uint8).ravel()
    written = tuple(a.name for a in half.signature.outputs if a.name in places)
    return Layout(places, before, written)


class Memory:
    """A block on the device that a kernel computes on, and its buffers there."""

    def __init__(self, place: Any, layout: Layout, adapt: Callable[[Any], Any]) -> None:
        self._device, self._layout = place, layout
        self._memory = place.empty(layout.before.size)
        self._bytes = place.view(self._memory, 0, layout.before.shape, np.dtype(np.uint8))
        self.buffers = {
            name: adapt(place.view(self._memory, p.start, p.shape, p.dtype))
            for name, p in layout.places.items()
        }

    def reset(self) -> None:
        """Everything as before the call."""
        self._device.from_host(self._bytes, self._layout.before)

    def read(self) -> np.ndarray:
        """The whole block, copied to the host."""
        self._device.synchronize()
        block = np.empty(self._layout.before.shape, np.uint8)
        self._device.to_host(block, self._bytes)
        return block
