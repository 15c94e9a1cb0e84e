"""Honest kernels: right, each in another way, so that each rounds differently. All must be accepted.

    judge_function(kernel.function, kernel.hook, ops, waive=TEMPORARIES)     for kernel in all_honest()

Each file begins with the plain kernels of its op, which `tests/conformance/wrong` breaks.
"""

import importlib
import pkgutil
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from harness.conformance.cases.case import Case
from harness.conformance.cases.listing import drawn_case
from harness.contract import OpTable

# They are written to be read: each expression takes an array, which a kernel in a step may not.
TEMPORARIES = ("memory",)

VARIANTS: list["Honest"] = []


@dataclass(frozen=True)
class Honest:
    """A right kernel of a half-op, and what is its own about it."""

    hook: str
    way: str
    function: Callable[..., None]

    @property
    def name(self) -> str:
        return f"{self.hook}-{self.function.__name__.strip('_')}"


def honest(
    hook: str, way: str, refused: str = ""
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Add the function below to the list, which stays usable as it is."""

    def add(function: Callable[..., None]) -> Callable[..., None]:
        VARIANTS.append(Honest(hook, way, function))
        return function

    return add


def all_honest() -> list[Honest]:
    """Every variant, by op."""
    for module in sorted(m.name for m in pkgutil.iter_modules(__path__)):
        importlib.import_module(f"{__name__}.{module}")
    return sorted(VARIANTS, key=lambda kernel: kernel.name)


def drawn_cases(ops: OpTable, hook: str, count: int, seed: int = 0) -> list[Case]:
    """Cases of any shape, style, data, None and setting: the same for every variant of a hook."""
    rng = np.random.default_rng([seed, zlib.crc32(hook.encode())])

    def choose(among: Sequence[Any]) -> Any:
        return among[int(rng.integers(len(among)))]

    return [drawn_case(ops.op_of(hook), hook, "fp32", choose) for _ in range(count)]


def put(buffer: np.ndarray | None, value: np.ndarray, accumulate: bool = False) -> None:
    """Overwrite a buffer, or add to it; nothing where it is None."""
    if buffer is None:
        return
    if accumulate:
        buffer += value
    else:
        buffer[...] = value


def tiles(size: int, width: int) -> list[slice]:
    """0 .. size in pieces of `width`, the last one as long as what is left."""
    return [slice(start, min(start + width, size)) for start in range(0, size, width)]
