"""A contestant of `harness bench train`: it trains when it is its turn, in a process of its own."""

import json
from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NoReturn

import psutil  # type: ignore[import-untyped]

from harness import errors
from harness.errors import HarnessError, ResourceError
from harness.machine import child

WORKER = Path(__file__).with_name("worker.py")
LAST_LINES = 8


class Contestant(ABC):
    """One that trains, in a process of its own.

    name: in the report. what: what it consists of. bf16: it computes with fewer bits, so its losses are
    compared more loosely. before: the bytes that its process held before the model was built.
    losses: of all its steps, in order. first_step_s: the first step may compile.
    device_bytes: the most that it held of a device's memory; known after peak(), None without a device.
    busy_s, waited_s: the processor time that it took while others had their turn, and how long that was.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.what = ""
        self.bf16 = False
        self.before: int | None = None
        self.losses: list[float] = []
        self.first_step_s = 0.0
        self.device_bytes: int | None = None
        self.busy_s = self.waited_s = 0.0

    @abstractmethod
    def build(self) -> str:
        """Start the process, and take the model's memory. Returns "", or why it cannot take part."""

    @abstractmethod
    def run(self, steps: int) -> list[float]:
        """Take so many steps, more or less, and wait again. Returns the seconds of each."""

    @abstractmethod
    def peak(self) -> int | None:
        """The most bytes that the process ever held; None where the system does not tell."""

    @abstractmethod
    def end(self) -> None:
        """End the process. To be called whatever has happened."""

    @property
    @abstractmethod
    def pid(self) -> int: ...

    @abstractmethod
    def _last_lines(self) -> list[str]:
        """The last lines of its standard error."""

    def processor_s(self) -> float:
        """The processor time of the process and its threads until now."""
        try:
            times = psutil.Process(self.pid).cpu_times()
        except psutil.Error:
            return 0.0
        return float(times.user + times.system)

    def _died(self, doing: str, found: str) -> NoReturn:
        raise ResourceError(
            f"contestant {self.name} gave up {doing}",
            slug="bench-contestant-died",
            found=found,
            it_said="\n".join(self._last_lines()) or None,
            do="leave it out, or --keep-going to compare the others",
        )


class Child(Contestant):
    """A worker.py that trains what a module builds.

    python: runs it. module: a name or a file. spec: what the module's functions take. environment: all
    of the process's.
    """

    def __init__(
        self,
        name: str,
        python: str,
        module: str,
        spec: dict[str, Any],
        environment: Mapping[str, str],
    ) -> None:
        super().__init__(name)
        self.python, self.module, self.spec = python, module, spec
        self.environment = dict(environment)
        self._child: child.Child | None = None

    @property
    def pid(self) -> int:
        assert self._child is not None, "built first"
        return self._child.pid

    def build(self) -> str:
        try:
            self._child = child.Child([self.python, str(WORKER)], self.environment, asks=True)
        except OSError as error:
            self._died("before it began", f"{self.python}: {error}")
        reply = self._ask("while it was built", do="build", module=self.module, spec=self.spec)
        if "unavailable" in reply:
            return str(reply["unavailable"])
        self.what, self.bf16, self.before = reply["what"], reply["bf16"], reply["before"]
        return ""

    def run(self, steps: int) -> list[float]:
        step = len(self.losses) + 1
        reply = self._ask(f"in step {step}", do="run", steps=steps)
        if not self.losses:
            self.first_step_s = reply["seconds"][0]
        self.losses += reply["losses"]
        return list(reply["seconds"])

    def peak(self) -> int | None:
        reply = self._ask("after its steps", do="peak")
        found, self.device_bytes = reply["bytes"], reply.get("device_bytes")
        return None if found is None else int(found)

    def waterfall(self, steps: int) -> dict[str, Any]:
        return self._ask("while its half-ops were timed", do="waterfall", steps=steps)

    def end(self) -> None:
        if self._child is not None:
            self._child.end()
            self._child = None

    def _last_lines(self) -> list[str]:
        return [] if self._child is None else self._child.last_lines(LAST_LINES)

    def _ask(self, doing: str, **request: Any) -> dict[str, Any]:
        assert self._child is not None
        line = self._child.ask(json.dumps(request))
        if not line:
            self._died(doing, self._child.wait())
        reply: dict[str, Any] = json.loads(line)
        if "error" in reply:
            self._raise(doing, reply["error"])
        return reply

    def _raise(self, doing: str, error: dict[str, Any]) -> NoReturn:
        kind = getattr(errors, error.get("class", ""), None)
        if kind is None:
            self._died(doing, error.get("failed", "an unknown error"))
        assert issubclass(kind, HarnessError)
        facts = {label.replace(" ", "_"): text for label, text in error["facts"].items()}
        raise kind(error["headline"], **{"slug": error["slug"], **facts})
