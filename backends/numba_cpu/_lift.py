"""Tiles as BLAS takes them: float32 ones where they lie, bfloat16 ones by way of a room for them.

    lift(tile, room)          before a product reads it: fill the room
    lifted(tile, room)        what the product reads

For float32 the first does nothing.
"""

from numba import types
from numba.extending import overload

from backends.numba_cpu._kernel import EXACT, helper
from backends.numba_cpu._narrow import wide


def lift(tile_NC, room_NC):
    """Fill the room with a bfloat16 tile."""
    raise NotImplementedError("called from compiled code only")


def lifted(tile_NC, room_NC):
    """The tile if it is float32, or else as much of the room as holds it."""
    raise NotImplementedError("called from compiled code only")


@overload(lift, jit_options={"fastmath": EXACT})
def _lift(tile_NC, room_NC):
    if tile_NC.dtype == types.uint16:
        return lambda tile_NC, room_NC: widen_rows(room_NC, tile_NC)
    return lambda tile_NC, room_NC: None


@overload(lifted, jit_options={"fastmath": EXACT})
def _lifted(tile_NC, room_NC):
    if tile_NC.dtype == types.uint16:
        return lambda tile_NC, room_NC: room_NC[: tile_NC.shape[0], : tile_NC.shape[1]]
    return lambda tile_NC, room_NC: tile_NC


@helper
def widen_rows(out_NC, x_NC):
    N, C = x_NC.shape
    for n in range(N):
        x_C, out_C = x_NC[n], out_NC[n]
        for c in range(C):
            out_C[c] = wide(x_C[c])
