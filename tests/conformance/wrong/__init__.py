"""Deliberately wrong kernels, each a bug that authors of kernels make. The suite must refuse them all.

    judge_function(kernel.function, kernel.hook, ops).passed      must be False, for all of all_wrong()

Most begin from an honest kernel of `tests/conformance/honest`, so that what is left here is the bug.
They take temporaries, as honest ones there do; only where that is the bug is the law of memory asked.
"""

import importlib
import pkgutil
from collections.abc import Callable
from dataclasses import dataclass

KERNELS: list["Wrong"] = []


@dataclass(frozen=True)
class Wrong:
    """A wrong kernel of a half-op.

    bug: in one line. subtle: whether a comparison in the style of llm.c lets it through (loose.py).
    law: of harness/conformance/laws.py, by which it must be refused where values cannot show it.
    precision: that it is judged at.
    """

    hook: str
    bug: str
    function: Callable[..., None]
    subtle: bool
    law: str = ""
    precision: str = "fp32"

    @property
    def waived(self) -> tuple[str, ...]:
        """The laws that are not asked of it."""
        return () if self.law == "memory" else ("memory",)

    @property
    def name(self) -> str:
        return f"{self.hook}-{self.function.__name__.strip('_')}"


def wrong(
    hook: str, bug: str, *, subtle: bool = False, **more: str
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Add the function below to the list. more: law, precision."""

    def add(function: Callable[..., None]) -> Callable[..., None]:
        KERNELS.append(Wrong(hook, bug, function, subtle, **more))
        return function

    return add


def all_wrong() -> list[Wrong]:
    """Every wrong kernel, by op."""
    for module in sorted(m.name for m in pkgutil.iter_modules(__path__)):
        importlib.import_module(f"{__name__}.{module}")
    return sorted(KERNELS, key=lambda kernel: kernel.name)
