"""Tell the time that backends spend compiling kernels from the time that steps take.

What a run is known to need can be compiled before the first step, and is said before it begins.
"""

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Any

from harness.plugins.loading import Backend

WORTH_A_LINE_S = 0.1


class CompileClock:
    """What the compiling backends say of themselves (`compile_seconds` in harness/device/hooks.py)."""

    def __init__(self, backends: Iterable[Backend]) -> None:
        self._clocks = {
            backend.name: backend.functions["compile_seconds"]
            for backend in backends
            if "compile_seconds" in backend
        }
        self._before = self._now()

    def lap(self) -> dict[str, float]:
        """Backend -> seconds since the last lap, of those that compiled."""
        now = self._now()
        spent = {name: now[name] - self._before[name] for name in now}
        self._before = now
        return {name: seconds for name, seconds in spent.items() if seconds > 0}

    def _now(self) -> dict[str, float]:
        return {name: float(clock()) for name, clock in self._clocks.items()}


@dataclass(frozen=True)
class Shaped:
    """What is known of a buffer before there is one."""

    shape: tuple[int, ...]
    dtype: Any


Call = tuple[Backend, str, Sequence[Any]]
"""(backend, hook, arguments), a buffer among them as Shaped, or as itself."""


def compile_ahead(
    calls: Iterable[Call], show: Callable[[str, int, int], None], stopped: Callable[[], bool]
) -> dict[str, float]:
    """Let each backend compile what its calls need. Backend -> seconds, of those that compiled.

    show: is told (backend, done, all), first with nothing done. stopped: asked after each kernel.
    """
    of_backend: dict[str, list[tuple[str, Sequence[Any]]]] = {}
    backends = {}
    for backend, hook, arguments in calls:
        if "compile_ahead" in backend:
            backends[backend.name] = backend
            of_backend.setdefault(backend.name, []).append((hook, arguments))
    spent = {}
    for name, its_calls in of_backend.items():
        started, worked = time.perf_counter(), False
        compiling: Iterator[tuple[int, int]] = backends[name].functions["compile_ahead"](its_calls)
        with closing(compiling):  # type: ignore[type-var]
            for done, count in compiling:
                worked = True
                show(name, done, count)
                if stopped():
                    break
        if worked:
            spent[name] = time.perf_counter() - started
    return spent
