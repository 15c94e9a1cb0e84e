"""Cut rows over threads and blocks: how many threads have a row, and how many rows a block has.

A block has several rows where a warp has one, else one row.
"""

from backends.cupy_cuda._launch import THREADS

WARP = 32
PACK_BYTES = 16
PACKS = 4
"""Of 16 bytes, that a thread has of a row at a time: all are asked for before the first is used."""


def over_rows(array):
    """(grid, block) of a kernel in which a warp, or else a block, goes over a row of this array."""
    N, V = array.shape
    packs = -(-V * array.dtype.itemsize // PACK_BYTES)
    threads = min(THREADS, whole_warps(packs, PACKS))
    rows = THREADS // WARP if threads == WARP else 1
    return -(-N // rows), (threads, rows)


def whole_warps(pieces, held):
    """Threads for a row of so many pieces, where each holds at most `held`."""
    return WARP * max(1, -(-pieces // (WARP * held)))
