"""The arrays of a kernel: NumPy's own, with an error where an index is not within them.

Checked     looks at every index; nothing else is different
Watched     tells watchers of every element that is loaded or stored: counting.py, races.py

A negative index counts from the end in NumPy, and mostly it is a guard that was forgotten.
"""

import linecache
import re
import sys
from functools import cached_property

import numpy as np
from numpy import ndarray

from harness.errors import PluginError

SIMULATORS = "numba.cuda.simulator", __package__
"""Modules whose lines are no kernel's."""

GLOBAL, SHARED, LOCAL = "global", "shared", "local"


class KernelIndexError(PluginError, IndexError):
    """A PluginError that is an IndexError, too: as the one that NumPy raises."""

    def __init__(self, error):
        Exception.__init__(self, error.headline)
        vars(self).update(vars(error))


class Checked(ndarray):
    """An array whose indices have to be within it. `plain` is the same array without the check."""

    label, space = "an array", LOCAL

    def __array_finalize__(self, source):
        if isinstance(source, Checked):
            self.label, self.space = source.label, source.space

    def __getattr__(self, name):
        if name != "plain":
            raise AttributeError(f"{type(self).__name__} has no attribute {name!r}")
        self.plain = plain = self.view(ndarray)  # of a result, which nobody gave one
        return plain

    def __getitem__(self, index):
        try:
            if type(index) is tuple:
                for part in index:
                    if part < 0:
                        raise self._beyond(index)
            elif index < 0:
                raise self._beyond(index)
        except TypeError:
            self._look(index)
        try:
            value = self.plain[index]
        except IndexError as error:
            raise self._beyond(index, error) from None
        return self._part(value) if type(value) is ndarray else value

    def __setitem__(self, index, value):
        try:
            if type(index) is tuple:
                for part in index:
                    if part < 0:
                        raise self._beyond(index)
            elif index < 0:
                raise self._beyond(index)
        except TypeError:
            self._look(index)
        try:
            self.plain[index] = value
        except IndexError as error:
            raise self._beyond(index, error) from None

    def __repr__(self):
        return repr(self.plain)

    def __str__(self):
        return str(self.plain)

    def _look(self, index):
        """Look at an index in which there are slices, too: those count from the end where they like."""
        for part in index if type(index) is tuple else (index,):
            if isinstance(part, int | np.integer) and part < 0:
                raise self._beyond(index)

    def _part(self, values):
        part = values.view(type(self))
        part.label, part.space, part.plain = self.label, self.space, values
        return part

    def _beyond(self, index, error=None):
        if isinstance(index, tuple) and all(isinstance(i, int | np.integer) for i in index):
            index = tuple(map(int, index))
        beyond = PluginError(
            f"index {index} is not within {named(self)} of shape {self.shape}",
            slug="kernel-index",
            reason=error and str(error),
        )
        return KernelIndexError(beyond)


class Watched(Checked):
    """An array whose loads and stores are told to `watchers`."""

    watchers = ()

    @cached_property
    def placed(self):
        """(address, axes, strides): what an element's own address is made of."""
        plain = self.plain
        return plain.__array_interface__["data"][0], plain.ndim, plain.strides

    def __array_finalize__(self, source):
        super().__array_finalize__(source)
        if isinstance(source, Watched):
            self.watchers = source.watchers

    def __getitem__(self, index):
        value = Checked.__getitem__(self, index)
        if not isinstance(value, ndarray):
            for watcher in self.watchers:
                watcher.load(self, index)
        return value

    def __setitem__(self, index, value):
        Checked.__setitem__(self, index, value)
        for watcher in self.watchers:
            watcher.store(self, index)

    def _part(self, values):
        part = super()._part(values)
        part.watchers = self.watchers
        return part


def of_kernel(array, label, space, watchers):
    """A NumPy array as a kernel sees it. label: its name, or (code, instruction) that asked for it."""
    seen = array.view(Watched if watchers else Checked)
    seen.label, seen.space, seen.plain = label, space, array.view(ndarray)
    if watchers:
        seen.watchers = watchers
    return seen


def named(array):
    """What an array is called in its kernel: an argument's name, or that of its line's assignment."""
    if isinstance(array.label, str):
        return array.label
    code, instruction = array.label
    line = line_of(code, instruction)
    assigned = re.match(r"\s*(\w+)\s*=[^=]", linecache.getline(code.co_filename, line))
    return assigned[1] if assigned else f"the {array.space} array of line {line}"


def line_of(code, instruction):
    """The line of a source that an instruction stems from."""
    for start, end, line in code.co_lines():
        if start <= instruction < end:
            return line
    return code.co_firstlineno


class _Simulators(dict):
    """By a module's name, whether it is one of a simulator: asked at every shared and local array."""

    def __missing__(self, name):
        self[name] = found = name.startswith(SIMULATORS)
        return found


_of_simulator = _Simulators()


def in_kernel(frame):
    """The frame, from this one outwards, that is of no simulator."""
    while _of_simulator[frame.f_globals["__name__"]]:
        frame = frame.f_back
    return frame


def here():
    """(code, instruction) of the kernel that asks."""
    frame = in_kernel(sys._getframe(1))
    return frame.f_code, frame.f_lasti
