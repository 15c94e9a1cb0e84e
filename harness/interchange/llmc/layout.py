"""Say where a tensor lies in a run of the sixteen kinds, as llm.c stores weights, gradients, moments.

All layers of a kind stand together before the next kind begins. Where `processes` ranks share the
optimizer's state (ZeRO stage 1), each holds an equal part of every tensor of every layer, and its own
run of kinds is that much shorter.
"""

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from harness.contract import Shape
from harness.errors import ConfigError
from harness.models.gpt2 import GPT2
from harness.models.kinds import KINDS, OF_THE_MODEL, kind_of, kind_shapes


@dataclass(frozen=True)
class Run:
    """The sixteen kinds, one after another; offsets and sizes in numbers, not bytes."""

    model: GPT2
    processes: int = 1

    @property
    def size(self) -> int:
        return sum(self._copies(kind) * self._part(kind) for kind in KINDS)

    def offset(self, name: str) -> int:
        """Where the tensor, or this rank's part of it, begins."""
        kind, _, layer = name.partition(".")
        before = KINDS[: KINDS.index(kind)]
        start = sum(self._copies(earlier) * self._part(earlier) for earlier in before)
        return start + int(layer or 0) * self._part(kind)

    def length(self, name: str) -> int:
        """How many numbers of the tensor are here."""
        return self._part(kind_of(name))

    def shape(self, name: str) -> Shape:
        """The shape of the whole tensor."""
        return kind_shapes(self.model)[kind_of(name)]

    def _part(self, kind: str) -> int:
        return math.prod(kind_shapes(self.model)[kind]) // self.processes

    def _copies(self, kind: str) -> int:
        return 1 if kind in OF_THE_MODEL else self.model.layers


def shared_run(model: GPT2, processes: int, path: Path) -> Run:
    """The run of one of several ranks; every tensor must divide among them, as llm.c asks too."""
    # Each tensor's size is a multiple of the channels, and the smallest is the channels.
    if model.channels % processes:
        raise ConfigError(
            f"{processes} processes cannot share tensors of {model.channels} numbers",
            slug="llmc-not-divisible",
            where=path,
            do="choose a number of processes that divides the model's channels",
        )
    return Run(model, processes)


def largest(model: GPT2) -> int:
    """The numbers of the largest tensor."""
    return max(math.prod(shape) for shape in kind_shapes(model).values())


def clear_padding(model: GPT2, name: str, values: np.ndarray) -> None:
    """Set the rows of the token embedding beyond the vocabulary to zero."""
    if name == "wte":
        values[model.vocab_size :] = 0
