"""Let all backends that compute on a device share one order of execution: one stream.

    stream = shared("cuda", "cupy", "HARNESS_CUDA_ON_CPU", Stream, make)

The first backend of a process that opens the device makes the stream, and every other takes it: what one
launches, the other's next launch finds done, and a captured graph holds the calls of both.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, ClassVar, TypeVar

from harness.errors import ConfigError

Call = Callable[[], None]


@dataclass(eq=False)
class Stream:
    """A CUDA stream. address: where it is. owner: what keeps it there, of the backend that made it.

    capturing: whether a graph is recorded on it, by whichever backend; memory must not be taken then.
    """

    where: ClassVar[str] = "on a GPU"

    address: int
    owner: Any = None
    capturing: bool = False

    def __cuda_stream__(self) -> tuple[int, int]:
        """The CUDA stream protocol: (version, address)."""
        return 0, self.address


class Recorder:
    """The stream of a device that the CPU stands in for: asked, it does at once, or it records."""

    where: ClassVar[str] = "on the CPU in a GPU's place"

    def __init__(self) -> None:
        self._recorded: list[Call] | None = None

    @property
    def capturing(self) -> bool:
        return self._recorded is not None

    def call(self, function: Call) -> None:
        """Do something in the order of the stream."""
        if self._recorded is None:
            function()
        else:
            self._recorded.append(function)

    def capture(self, calls: Iterable[Call]) -> Call:
        """Record what the calls ask for, and give back what does it."""
        assert self._recorded is None, "a graph is being captured already"
        recorded: list[Call] = []
        self._recorded = recorded
        try:
            for call in calls:
                call()
        finally:
            self._recorded = None

        def replay() -> None:
            for step in recorded:
                step()

        return replay

    def refuse_in_a_capture(self, what: str) -> None:
        """Raise RuntimeError if a graph is being captured: a GPU refuses what would follow."""
        if self.capturing:
            raise RuntimeError(f"{what} while a graph is captured: CUDA refuses that")


Kind = TypeVar("Kind", Stream, Recorder)


@dataclass(frozen=True)
class _Opened:
    backend: str
    variable: str
    stream: Any


_opened: dict[str, _Opened] = {}


def shared(
    device: str, backend: str, variable: str, kind: type[Kind], make: Callable[[], Kind]
) -> Kind:
    """The stream of a device in this process; make() is called where there is none yet.

    variable: of the environment, which puts the CPU in the device's place for this backend.
    Raises ConfigError where one backend is on the device, and another on the CPU in its place.
    """
    if device not in _opened:
        _opened[device] = _Opened(backend, variable, make())
    first = _opened[device]
    if not isinstance(first.stream, kind):
        raise ConfigError(
            f"backend '{first.backend}' computes {first.stream.where}, and '{backend}' {kind.where}",
            slug="stand-in-beside-a-device",
            effect="they cannot share memory",
            do=f"set both {first.variable}=1 and {variable}=1, or neither",
        )
    return first.stream
