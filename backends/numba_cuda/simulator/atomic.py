"""Atomic operations: Numba's own. Watchers are told of one, and not of its load and its store."""

from functools import wraps

from numba.cuda.simulator.kernelapi import FakeCUDAAtomic

from backends.numba_cuda.simulator.arrays import Checked, Watched


class Atomic(FakeCUDAAtomic):
    pass


def _told(name):
    change = getattr(FakeCUDAAtomic, name)

    @wraps(change)
    def told(self, array, *arguments):
        if isinstance(array, Watched):
            index = 0 if name == "compare_and_swap" else arguments[0]
            Checked.__getitem__(array, index)  # which raises, where it is beyond
            for watcher in array.watchers:
                watcher.atomic(array, index)
            array = array.plain
        return change(self, array, *arguments)

    return told


for _name in vars(FakeCUDAAtomic):
    if not _name.startswith("_"):
        setattr(Atomic, _name, _told(_name))
