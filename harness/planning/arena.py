"""Place buffers in one arena by liveness: two may share bytes only if their lifetimes do not meet."""

from collections.abc import Sequence
from dataclasses import dataclass

from harness.device import aligned


@dataclass(eq=False)
class Block:
    """Bytes that are needed from step `first` to step `last`, both included."""

    nbytes: int
    first: int
    last: int
    offset: int = -1

    def meets(self, other: "Block") -> bool:
        return self.first <= other.last and other.first <= self.last


@dataclass(frozen=True)
class ArenaUse:
    """Bytes of one arena. live: the most that is needed at one time. scratch: what of it is so."""

    nbytes: int
    live: int
    scratch: int


def live_bytes(blocks: Sequence[Block]) -> int:
    """The most that is needed at one time: no arena can be smaller."""
    changes: dict[int, int] = {}
    for block in blocks:
        changes[block.first] = changes.get(block.first, 0) + aligned(block.nbytes)
        changes[block.last + 1] = changes.get(block.last + 1, 0) - aligned(block.nbytes)
    most = now = 0
    for _, change in sorted(changes.items()):
        now += change
        most = max(most, now)
    return most


def place(blocks: Sequence[Block]) -> int:
    """Give each block its offset; returns the bytes of the arena.

    Largest first, each at the lowest gap that fits: within a few per cent of the live maximum on
    GPT-2's lifetimes, which nest.
    """
    placed: list[Block] = []
    for block in sorted(blocks, key=lambda b: (-b.nbytes, b.first)):
        offset = 0
        for other in sorted((o for o in placed if o.meets(block)), key=lambda o: o.offset):
            if offset + aligned(block.nbytes) <= other.offset:
                break
            offset = max(offset, other.offset + aligned(other.nbytes))
        block.offset = offset
        placed.append(block)
    return max((b.offset + aligned(b.nbytes) for b in placed), default=0)
