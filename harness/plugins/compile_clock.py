"""Tell the time that backends spend compiling kernels from the time that steps take."""

from collections.abc import Iterable

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
