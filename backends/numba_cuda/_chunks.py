"""Work on some rows at a time, as memory allows.

for first, last in chunks(N, count): x_NC[first:last] ...
"""

GRAIN = 128
"""Rows in a chunk are a multiple of it where memory allows: products are made of such tiles."""


def rows_within(nbytes, N, row_bytes):
    """Rows of a chunk, whose scratch is so many bytes a row: all N, or as many as fit."""
    most = max(1, nbytes // row_bytes)
    if most >= N:
        return N
    return most // GRAIN * GRAIN or most


def chunks(N, count):
    """Yield (first, last) of chunks of this many rows; of fewer in the end."""
    for first in range(0, N, count):
        yield first, min(first + count, N)
