"""Cut the flat arena for the optimizer: into groups by weight decay, and into a shard for each rank.

With ZeRO stage 1 each rank updates its own shard of the arena, and keeps moments for that alone. An
update is by element, so whatever the cut, every parameter gets the same bits.
Source: Rajbhandari et al. 2020, arXiv:1910.02054, section 5.1.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from harness.errors import ConfigError
from harness.planning.layout import NUMBERS, Layout


@dataclass(frozen=True)
class Span:
    """Elements start .. stop of the arena, which one call of the optimizer updates."""

    start: int
    stop: int
    weight_decay: float

    def __len__(self) -> int:
        return max(0, self.stop - self.start)


def groups(layout: Layout, decay: str, weight_decay: float) -> list[Span]:
    """The trained part of the arena: what decays, then what does not. decay: see OptimizerSettings."""
    decayed = {"matrices": layout.decayed, "all": layout.trained, "none": 0}[decay]
    found = [Span(0, decayed, weight_decay), Span(decayed, layout.trained, 0.0)]
    return [span for span in found if len(span)]


def shard_size(layout: Layout, ranks: int) -> int:
    """Elements of each rank's shard: equal, and a multiple of 128 bytes in float32 and in bfloat16.

    ranks * shard_size is what the arenas are padded to. Raises ConfigError for no rank at all.
    """
    if ranks < 1:
        raise ConfigError(f"{ranks} ranks share a run", slug="no-ranks", expected="1 or more")
    return -(-layout.trained // (ranks * NUMBERS)) * NUMBERS


def shard(spans: Sequence[Span], size: int, rank: int) -> list[Span]:
    """The parts of some spans that lie in a rank's shard; none where that is all padding."""
    first, last = rank * size, (rank + 1) * size
    cut = [Span(max(r.start, first), min(r.stop, last), r.weight_decay) for r in spans]
    return [span for span in cut if len(span)]
