"""Measure what OPENBLAS_CORETYPE costs: the same matrix product with the variable and without it.

NumPy reads the variable when it is loaded, so each side is a process of its own. They take turns: on a
shared machine, measuring one after the other would compare two moments.
"""

import hashlib
import json
import os
import sys
import time
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from harness.machine.child import Child
from harness.machine.reexec import CORETYPE

SIZE = 1024  # rows and columns: 2.1 GFLOP, some 15 ms on two cores
FLOPS = 2 * SIZE**3
TURNS = 9
PAUSE_S = 0.02  # the neighbour's BLAS threads spin for some milliseconds after their work
BUDGET_S = 3.0
START_TIMEOUT_S = 20.0


@dataclass(frozen=True)
class Speed:
    """Medians of float32 FLOP/s. unset: without OPENBLAS_CORETYPE; None where it is not set."""

    threads: int
    as_is: float
    kernels: str
    one_thread: float | None
    unset: float | None = None
    kernels_unset: str | None = None

    @property
    def cost(self) -> float | None:
        """How many times as long products take because the variable is set."""
        return None if self.unset is None else self.unset / self.as_is


class _Side:
    """A process that multiplies matrices when it is told to."""

    def __init__(self, environment: dict[str, str]) -> None:
        command = [sys.executable, "-m", "harness.machine.blas_speed"]
        self.child = Child(command, environment, asks=True)

    def kernels(self) -> str:
        return self._answered(self.child.receive())

    def seconds(self, threads: int) -> float:
        return float(self._answered(self.child.ask(str(threads))))

    def _answered(self, line: str) -> str:
        if not line:
            raise OSError(f"the measuring process ended by {self.child.wait()}")
        return line.strip()

    def __enter__(self) -> "_Side":
        return self

    def __exit__(self, *exception: object) -> None:
        self.child.end(START_TIMEOUT_S)


def measure(threads: int, turns: int = TURNS) -> Speed:
    """Measure now, a second or two. Raises OSError where a process cannot be started."""
    as_it_is = dict(os.environ)
    unset = {name: value for name, value in as_it_is.items() if name != CORETYPE}
    is_pinned = bool(os.environ.get(CORETYPE))
    with ExitStack() as stack:
        ours = stack.enter_context(_Side(as_it_is))
        free = stack.enter_context(_Side(unset)) if is_pinned else None
        kernels = ours.kernels()
        kernels_unset = None if free is None else free.kernels()
        asked = {"as_is": (ours, threads)}
        if threads > 1:
            asked["one_thread"] = (ours, 1)
        if free is not None:
            asked["unset"] = (free, threads)
        seconds: dict[str, list[float]] = {name: [] for name in asked}
        begin = time.perf_counter()
        for turn in range(turns):
            for name, (side, count) in asked.items():
                time.sleep(PAUSE_S)
                seconds[name].append(side.seconds(count))
            if turn >= 2 and time.perf_counter() - begin > BUDGET_S:
                break
    speed: dict[str, Any] = {name: FLOPS / median(found) for name, found in seconds.items()}
    speed.setdefault("one_thread", None)
    return Speed(threads=threads, kernels=kernels, kernels_unset=kernels_unset, **speed)


def keep(speed: Speed) -> None:
    """Remember what the variable costs here, for the headers of later runs."""
    if speed.cost is None:
        return
    file = _file()
    with suppress(OSError):  # a read-only home costs the number in a header, and nothing else
        file.parent.mkdir(parents=True, exist_ok=True)
        whole = file.with_suffix(f".{os.getpid()}")
        whole.write_text(json.dumps({"cost": speed.cost}) + "\n")
        whole.replace(file)


def cached_cost() -> float | None:
    """The measured cost of OPENBLAS_CORETYPE as it is set on this machine; None if never measured."""
    try:
        cost = json.loads(_file().read_text())["cost"]
    except (OSError, ValueError, TypeError, KeyError, RecursionError):
        return None
    return cost if isinstance(cost, float) and 0 < cost < 1000 else None


def _file() -> Path:
    from harness.machine.peaks import cache_folder
    from harness.machine.processor import this_machine

    machine = this_machine()
    parts = [machine.cpu, machine.numpy, machine.blas, machine.openblas_coretype]
    key = hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:16]
    return cache_folder() / f"coretype-{key}.json"


def _serve() -> None:
    """Say which kernels there are; then for each line, a thread count, the seconds of one product."""
    import numpy as np
    import threadpoolctl  # type: ignore[import-untyped]

    from harness.machine.blas import library_of

    print(library_of("numpy").get("architecture", "unknown"), flush=True)
    x = np.ones((SIZE, SIZE), np.float32)
    out = np.empty_like(x)
    np.matmul(x, x, out=out)
    limits = threadpoolctl.ThreadpoolController()
    for line in sys.stdin:
        with limits.limit(limits=int(line)):
            begin = time.perf_counter()
            np.matmul(x, x, out=out)
            print(time.perf_counter() - begin, flush=True)


if __name__ == "__main__":
    _serve()
