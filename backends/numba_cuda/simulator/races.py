"""Find two threads that touch one element where nothing says who comes first, and one of them writes.

Within a block a barrier says it. Between blocks nothing does, but for the end of the kernel and a grid's
barrier; so here blocks that hand on results by a counter and a fence are found, too. Atomic operations
are in nobody's way but a plain load's or store's. And shared memory is read after it was written.

An element is known by its address: two arguments that are one memory are one memory here.
"""

from math import prod
from sys import _getframe

import numpy as np

from backends.numba_cuda.simulator import faults
from backends.numba_cuda.simulator.arrays import GLOBAL, SHARED, in_kernel, named
from harness.errors import PluginError

LOAD, STORE, ATOMIC = "reads it", "writes it", "changes it atomically"


class Races:
    """The watcher of a launch that raises PluginError at the first race."""

    def __init__(self, grid):
        self._grid, self._cuda = grid, grid.cuda
        self._since_barrier, self._since_start = {}, {}
        self._written = set()
        self._of_block = {}

    def load(self, array, index, kind=LOAD):
        for element in _addresses(array, index):
            if array.space is SHARED and element not in self._written:
                self._not_written(array, index)
            self._touch(element, kind, array, index)

    def store(self, array, index):
        for element in _addresses(array, index):
            if array.space is SHARED:
                self._written.add(element)
            self._touch(element, STORE, array, index)

    def atomic(self, array, index):
        self.load(array, index, ATOMIC)

    def begin_block(self, place):
        """A block runs, for the first time or on from the grid's barrier."""
        self._written = self._of_block.setdefault(place, set())
        self._since_barrier = {}

    def barrier(self):
        self._since_barrier = {}

    def grid_barrier(self):
        self._since_barrier, self._since_start = {}, {}

    def _touch(self, element, kind, array, index):
        frame = in_kernel(_getframe(2))
        me = Touch(kind, self._cuda.threadIdx, self._cuda.blockIdx, frame.f_code, frame.f_lasti)
        self._meet(self._since_barrier, element, me, me.thread, array, index)
        if array.space is GLOBAL:
            self._meet(self._since_start, element, me, me.block, array, index)

    def _meet(self, touched, element, me, who, array, index):
        """Compare with those who touched the element before.

        The first of each kind is enough: a thread is done with its stretch before the next begins.
        """
        before = touched.setdefault(element, {})
        for kind, (someone, touch) in before.items():
            if someone is not who and not (kind is me.kind is not STORE):
                raise self._race(touch, me, array, index)
        before.setdefault(me.kind, (who, me))

    def _race(self, first, second, array, index):
        apart = first.block is not second.block
        return PluginError(
            f"{self._grid.function.__name__}: {'two blocks' if apart else 'two threads'} touch "
            f"{named(array)}[{_spelled(index)}], and nothing says which of them is first",
            slug="kernel-race",
            threads=f"{first}\n{second}",
            effect="another result in another order, on a GPU at any time",
            do="give each element to one block, or launch a second kernel"
            if apart
            else "put a cuda.syncthreads() in between, or give each element to one thread",
        )

    def _not_written(self, array, index):
        raise PluginError(
            f"{named(array)}[{_spelled(index)}] is read before any thread of the block wrote it",
            slug="kernel-shared-memory",
            effect="on a GPU it holds whatever was there before",
        )


class Touch:
    """Who touched an element, how, and where."""

    __slots__ = "block", "code", "instruction", "kind", "thread"

    def __init__(self, kind, thread, block, code, instruction):
        self.kind, self.thread, self.block = kind, thread, block
        self.code, self.instruction = code, instruction

    def __str__(self):
        line = faults.spelled([(self.code, self.instruction)])
        return f"thread {self.thread} of block {self.block} {self.kind} at {line}"


def _addresses(array, index):
    start, axes, strides = array.placed
    if type(index) is not tuple:
        index = (index,)
    if len(index) == axes:
        try:
            for i, stride in zip(index, strides, strict=True):
                start += int(i) * stride
            return (start,)
        except TypeError:
            pass  # there is a slice among them
    part = array.plain[index]
    start = part.__array_interface__["data"][0]
    places = np.ndindex(part.shape) if prod(part.shape) else ()
    return [start + sum(i * s for i, s in zip(p, part.strides, strict=True)) for p in places]


def _spelled(index):
    return ", ".join(map(str, index)) if isinstance(index, tuple) else str(index)
