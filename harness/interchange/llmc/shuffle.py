"""The order in which llm.c's CUDA trainer reads its data, at the end of its optimizer state.

uint64      number of shards            int32 each: their order
uint64      samples in this shard       int32 each: their order
2,520 bytes the generator that will draw the next orders (mt19937)
"""

import struct
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

GENERATOR_BYTES = 2520  # seed, left, next, 624 words of state, 2 of a constant


@dataclass(frozen=True)
class Shuffle:
    """generator: the struct of llm.c as it was in memory; part of it is never initialised there."""

    shards: npt.NDArray[np.int32]
    samples: npt.NDArray[np.int32]
    generator: bytes

    def encode(self) -> bytes:
        assert len(self.generator) == GENERATOR_BYTES
        orders = (np.asarray(order, "<i4") for order in (self.shards, self.samples))
        parts = [struct.pack("<Q", len(order)) + order.tobytes() for order in orders]
        return b"".join([*parts, self.generator])


def decode(raw: bytes) -> Shuffle | None:
    """The shuffle that fills raw exactly; None if there is no such."""
    orders, position = [], 0
    for _ in range(2):
        if position + 8 > len(raw):
            return None
        (count,) = struct.unpack_from("<Q", raw, position)
        position += 8
        if count > (len(raw) - position) // 4:
            return None
        order = np.frombuffer(raw, "<i4", count, position).astype(np.int32)
        if not np.array_equal(np.sort(order), np.arange(count)):
            return None
        orders.append(order)
        position += 4 * count
    if len(raw) - position != GENERATOR_BYTES:
        return None
    return Shuffle(orders[0], orders[1], raw[position:])
