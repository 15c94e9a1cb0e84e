"""The weights as ops in bf16 read them: one arena, laid out as the masters, made of them by one call.

The trained weights are made anew after each update: by the optimizer itself (`adamw_master`), or by a
call over the whole arena (`cast`, `stochastic_cast`). The frozen ones are made once, to nearest: they
do not move, so rounding them at random would gain nothing.
"""

from typing import Any

import numpy as np

from harness.contract.precision import BFLOAT16, FLOAT32, Precision
from harness.errors import ConfigError
from harness.graph.program import Call, Program, Tensor
from harness.planning.layout import Layout
from harness.planning.plan import Step, Version, View
from harness.plugins.dispatch import Choice, Dispatch

TRAINED, FROZEN = "trained weights", "frozen weights"
KEY = "rounding key"

ARENA = "arena"
"""The kind of a version that is a part of the parameters' arenas, and of no program."""


def renewal(
    program: Program, layout: Layout, precision: Precision, dispatch: Dispatch, home: str
) -> list[Step]:
    """The calls that make the bf16 weights from the masters, one for each part that there is."""
    at_random = precision.rounding == "stochastic"
    steps = []
    if layout.trained:
        hook = "stochastic_cast" if at_random else "cast"
        steps.append(_step(TRAINED, layout.trained, hook, program, dispatch, home))
    if layout.trained < layout.total:
        steps.append(_step(FROZEN, layout.total - layout.trained, "cast", program, dispatch, home))
    return steps


def part_of(step: Step) -> str | None:
    """Which part of the bf16 weights a step makes; None for any other step."""
    version = step.views[0].version
    return version.tensor.name if version.kind == ARENA else None


def _step(part: str, size: int, hook: str, program: Program, dispatch: Dispatch, home: str) -> Step:
    choice = dispatch.choose(hook)
    if choice.backend.device != home:
        raise cast_elsewhere(f"the {part} on {home}", BFLOAT16, choice)

    def view(name: str, count: int, dtype: np.dtype) -> View:
        tensor = Tensor(name, (count,), ARENA, dtype.name, program)
        return View(Version(tensor, home, dtype, ARENA), (count,))

    arguments: dict[str, Any] = {
        "out_P": view(part, size, BFLOAT16),
        "x_P": view(part, size, FLOAT32),
    }
    if hook == "stochastic_cast":
        arguments |= {"key_2": view(KEY, 2, np.dtype(np.int32)), "first": 0}
    op = dispatch.ops[hook]
    call = Call(op, op.forward, arguments, {"P": size})
    return Step("cast", hook, arguments, choice, call)


def cast_elsewhere(what: str, dtype: np.dtype, choice: Choice) -> ConfigError:
    return ConfigError(
        f"{what} must be cast to {dtype.name}, and {choice.chosen_by}={choice.backend.name} "
        f"is on {choice.backend.device}",
        slug="cast-elsewhere",
        do=f"ops.{choice.hook}=NAME of a backend on that device",
    )
