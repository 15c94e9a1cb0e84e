"""Time a call by the device's own clock: several times back to back, so that launching is not counted.

On an idle device the time between two marks includes the host's launch, ten microseconds and more in
Python. In a run it is hidden behind earlier work. So the call is recorded many times and replayed
between the marks; where the device cannot record, it is made many times in a row.
"""

from collections.abc import Callable

from harness.plugins.loading import Backend

TARGET_S = 2e-3
MAX_REPEATS = 100


class DeviceClock:
    """Called, gives the seconds of one call on a backend's device."""

    def __init__(self, backend: Backend, call: Callable[[], None]) -> None:
        self._backend, self._call = backend, call
        self._seconds: Callable[[Callable[[], None]], float] = backend.functions["device_seconds"]
        self._many: Callable[[], None] | None = None
        self._repeats = 0

    @classmethod
    def of(cls, backend: Backend, call: Callable[[], None]) -> "DeviceClock | None":
        """A clock, or None where the host's must do."""
        has_one = backend.device != "host" and "device_seconds" in backend
        return cls(backend, call) if has_one else None

    def __call__(self) -> float:
        if self._many is None:
            self._many = self._prepare()
        return self._seconds(self._many) / self._repeats

    def _prepare(self) -> Callable[[], None]:
        self._call()  # kernels are compiled and memory is taken by the first
        once_s = self._seconds(self._call)
        self._repeats = max(1, min(MAX_REPEATS, int(TARGET_S / max(once_s, 1e-9))))
        calls = [self._call] * self._repeats
        records = self._backend.capturable and "capture" in self._backend
        replay = self._backend.functions["capture"](calls) if records else None

        def in_a_row() -> None:
            for call in calls:
                call()

        return replay or in_a_row
