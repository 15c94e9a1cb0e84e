"""What will run: every call of a program with its backend, dtypes, devices and memory.

A plan is made by planner.py, printed by plan_table.py and run by executor.py.
"""

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from harness.contract import Shape
from harness.contract.precision import Precision
from harness.graph.program import Call, Program, Tensor
from harness.planning.arena import ArenaUse, Block
from harness.plugins.dispatch import Choice, Dispatch


@dataclass(eq=False)
class Version:
    """One copy of a tensor: on one device, in one dtype. `block` is where it lies in the arena.

    kind: `activation` is placed by liveness; `input`, `parameter`, `state` and `gradient` last; `arena`
        is a part of the parameters' arenas, of many parameters together.
    """

    tensor: Tensor
    device: str
    dtype: np.dtype
    kind: str
    block: Block = field(default_factory=lambda: Block(0, -1, -1))

    @property
    def nbytes(self) -> int:
        return self.tensor.size * self.dtype.itemsize

    def __str__(self) -> str:
        return f"{self.tensor.name} {self.dtype.name} on {self.device}"


@dataclass(frozen=True)
class View:
    """A version, in the shape that a call sees it in."""

    version: Version
    shape: Shape


@dataclass(eq=False)
class Step:
    """One thing to do: kind `op`, `cast`, `copy` or `zero`.

    arguments: in the hook's order; a View, a setting, or None.
    accumulate: for a hook that takes it, its value in the first micro-batch (True in all later ones).
    first_only: done in the first micro-batch of an optimizer step only.
    scratch: where what the call needs in between lies in the arena, where the plan looks after it.
    """

    kind: str
    hook: str
    arguments: dict[str, Any]
    choice: Choice | None = None
    call: Call | None = None
    accumulate: bool = False
    first_only: bool = False
    scratch: Block | None = None

    @property
    def again(self) -> bool:
        """Whether it makes what the forward had made and dropped."""
        return self.call is not None and self.call.again

    @property
    def views(self) -> list[View]:
        return [a for a in self.arguments.values() if isinstance(a, View)]

    @property
    def device(self) -> str:
        return self.views[0].version.device

    @property
    def moved_bytes(self) -> int:
        """Bytes that the step must move, by the op's signature and its dtypes."""
        if self.call is None:
            return sum(v.version.nbytes for v in self.views)
        itemsize = {
            name: v.version.dtype.itemsize
            for name, v in self.arguments.items()
            if isinstance(v, View)
        }
        return self.call.half.count_bytes(self.call.dims, lambda a: itemsize.get(a.name, 0))

    @property
    def flops(self) -> int:
        return self.call.half.count_flops(self.call.dims) if self.call else 0


@dataclass
class Plan:
    """What a program is on its devices.

    forward, backward: one micro-batch. gather: brings gradients home, before the optimizer.
    refresh: renews the bf16 weights and the copies of parameters, after it.
    expanded: fused op -> why.
    arenas: device -> what its arena of activations and scratch takes.
    """

    program: Program
    dispatch: Dispatch
    precision: Precision
    home: str
    loss: View | None
    results: list[View]
    forward: list[Step]
    backward: list[Step]
    gather: list[Step]
    refresh: list[Step]
    versions: dict[tuple[Tensor, str, np.dtype], Version]
    gradients: dict[str, Version]
    seed: View | None
    expanded: dict[str, str]
    arenas: dict[str, ArenaUse]

    @property
    def arena_bytes(self) -> dict[str, int]:
        """Device -> bytes of its activations and scratch."""
        return {device: use.nbytes for device, use in self.arenas.items()}

    @property
    def steps(self) -> list[Step]:
        return self.forward + self.backward + self.gather + self.refresh

    @property
    def copies(self) -> list[Step]:
        return [step for step in self.steps if step.kind == "copy"]

    @property
    def staging_bytes(self) -> int:
        """Host memory that each copy in turn passes through: that of the largest."""
        return max((step.views[0].version.nbytes for step in self.copies), default=0)

    @property
    def casts(self) -> list[Step]:
        return [step for step in self.steps if step.kind == "cast"]

    @property
    def renewals(self) -> list[Step]:
        """The calls that make the bf16 weights from the masters, over whole arenas."""
        return [step for step in self.refresh if step.kind == "cast"]

    @property
    def hooks(self) -> tuple[str, ...]:
        """The half-ops that run, in order of first use."""
        return tuple(dict.fromkeys(step.hook for step in self.steps if step.choice))

    @property
    def states(self) -> list[Version]:
        """What is left for the next run: caches."""
        return [v for v in self.versions.values() if v.kind == "state"]

    def input_versions(self, tensor: Tensor) -> list[Version]:
        """The copies of an input that the host fills: one on each device that reads it."""
        return [v for (t, _, _), v in self.versions.items() if t is tensor and v.kind == "input"]
