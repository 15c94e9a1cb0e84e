"""Add up the time of each half-op: a plugin of the hook wrap_op, usable in any run.

    python -m harness.train wrappers=[harness/bench/op_times.py]

`spent` is what the functions took since it was last cleared. On a device, where a call returns before
it is done, set `device_seconds` to the device's clock, or `synchronize` where it has none: each call
then waits, and the calls no longer overlap.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from harness import hookimpl


@dataclass
class Spent:
    calls: int = 0
    seconds: float = 0.0


spent: dict[str, Spent] = {}
"""Hook -> calls and seconds."""

synchronize: Callable[[], None] | None = None
device_seconds: Callable[[Callable[[], None]], float] | None = None


@hookimpl
def wrap_op(op: str, backend: str, call: Callable[..., None]) -> Callable[..., None]:
    clock = time.perf_counter

    def seconds_of(arguments: tuple[Any, ...]) -> float:
        if device_seconds is not None:
            return device_seconds(lambda: call(*arguments))
        start = clock()
        call(*arguments)
        if synchronize is not None:
            synchronize()
        return clock() - start

    def timed(*arguments: Any) -> None:
        elapsed = seconds_of(arguments)
        total = spent.setdefault(op, Spent())
        total.calls += 1
        total.seconds += elapsed

    return timed
