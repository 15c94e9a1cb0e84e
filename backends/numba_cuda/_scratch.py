"""Memory of the device for what an op needs in between, as harness/device/workspace.py says.

sums_BC, = scratch((BLOCKS, C))
"""

from backends.numba_cuda._machine import machine
from harness.device import Workspace, room

__all__ = ["available", "lend", "needed", "room", "scratch", "takes"]


def _empty(nbytes):
    return machine().empty(nbytes)


def _view(memory, offset, shape, dtype):
    return machine().view(memory, offset, shape, dtype)


_memory = Workspace(_empty, _view)
takes, needed, lend = _memory.takes, _memory.needed, _memory.lend
available, scratch = _memory.available, _memory.scratch
