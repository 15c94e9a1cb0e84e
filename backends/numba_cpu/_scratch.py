"""Memory of the host for what a kernel needs in between; harness/lent_scratch.py says how it is used."""

import numpy as np

from harness.device import HOST
from harness.lent_scratch import LentScratch, room

__all__ = ["available", "lend", "needed", "room", "scratch", "takes"]


def _view(memory, offset, shape, dtype):
    return np.ndarray(shape, dtype, memory, offset)


_memory = LentScratch(HOST.empty, _view)
takes, needed, lend = _memory.takes, _memory.needed, _memory.lend
available, scratch = _memory.available, _memory.scratch
