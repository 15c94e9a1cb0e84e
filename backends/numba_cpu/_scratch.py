"""Memory of the host for what a kernel needs in between, as harness/device/workspace.py says."""

import numpy as np

from harness.device import HOST, Workspace, room

__all__ = ["available", "forget", "lend", "needed", "room", "scratch", "takes"]


def _view(memory, offset, shape, dtype):
    return np.ndarray(shape, dtype, memory, offset)


_memory = Workspace(HOST.empty, _view)
takes, needed, lend = _memory.takes, _memory.needed, _memory.lend
available, scratch, forget = _memory.available, _memory.scratch, _memory.forget
