"""Where each parameter stands in the flat arenas of a model, and how many bytes an arena takes.

Parameters, gradients and the optimizer's moments have one layout. Parameters that weight decay applies
to come first, then the other trained ones, then the frozen ones, so that the optimizer makes one call
per group. Each parameter begins at a multiple of 128 bytes, in bfloat16 too; the gaps are zero and stay
zero.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from harness.contract import Shape
from harness.contract.precision import BFLOAT16, FLOAT32
from harness.device import ALIGNMENT
from harness.graph.program import Program

NUMBERS = ALIGNMENT // BFLOAT16.itemsize
"""A parameter begins at a multiple of this many numbers, in every arena."""

BF16_WEIGHTS = "bf16_weights"
"""The arena of the weights in bfloat16, as ops read them; all other arenas are float32."""


@dataclass(frozen=True)
class Layout:
    """Where each parameter stands in a flat arena, in elements.

    decayed: the end of those that weight decay applies to; trained: the end of those with gradients.
    """

    offsets: Mapping[str, int]
    shapes: Mapping[str, Shape]
    decayed: int
    trained: int
    total: int


def make_layout(program: Program) -> Layout:
    """The layout of a program's parameters."""
    ordered = sorted(program.parameters.values(), key=lambda p: (not p.trained, not p.decay))
    offsets, shapes, end = {}, {}, 0
    ends = {"decayed": 0, "trained": 0}
    for parameter in ordered:
        offsets[parameter.name], shapes[parameter.name] = end, parameter.shape
        end += -(-parameter.size // NUMBERS) * NUMBERS
        if parameter.trained:
            ends["trained"] = end
            if parameter.decay:
                ends["decayed"] = end
    return Layout(offsets, shapes, ends["decayed"], ends["trained"], end)


def arena_bytes(layout: Layout, arena: str) -> int:
    """The bytes of an arena: masters and bf16 weights of all parameters, else of the trained."""
    count = layout.total if arena in ("parameter", BF16_WEIGHTS) else layout.trained
    return count * arena_dtype(arena).itemsize


def arena_dtype(arena: str) -> np.dtype:
    """The dtype of an arena's numbers: bfloat16 or float32."""
    return BFLOAT16 if arena == BF16_WEIGHTS else FLOAT32
