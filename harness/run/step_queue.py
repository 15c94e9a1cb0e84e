"""Begin the steps of a run in order, and finish each when its result is known.

Where the device lets a result be read back later, the next step is begun before the result of this one
is read, so that the device always has work. A step's time is that from one result to the next.
"""

import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from harness.data import Sequences
from harness.plugins.compile_clock import CompileClock
from harness.training.trainer import StepResult, Trainer


@dataclass(frozen=True)
class Finished:
    """A step whose result is known. compiled: backend -> seconds of compiling, not among elapsed_s."""

    step: int
    rate: float
    result: StepResult
    elapsed_s: float
    compiled: dict[str, float]


class StepQueue:
    """The steps of a run. begun: the number of the last one begun. after: the step before the first."""

    def __init__(
        self,
        trainer: Trainer,
        sequences: Sequences,
        schedule: Callable[[int], float],
        after: int,
    ) -> None:
        self.begun = after
        self.compiling_s = 0.0
        self._trainer, self._sequences, self._schedule = trainer, sequences, schedule
        settings = trainer.settings
        self._count = settings.batch_size * settings.gradient_accumulation
        self._clock = CompileClock(trainer.plan.dispatch.backends)
        self._in_flight: deque[tuple[int, float, dict[str, float]]] = deque()
        self._since = self._compiled_since = 0.0

    @property
    def in_flight(self) -> int:
        """How many steps were begun and are not finished."""
        return len(self._in_flight)

    def compiled(self) -> dict[str, float]:
        """Backend -> seconds of compiling since the last step; to be called between steps."""
        spent = self._clock.lap()
        self.compiling_s += sum(spent.values())
        return spent

    def begin(self) -> None:
        """Ask the device for the next step."""
        if not self._in_flight:
            self._since, self._compiled_since = time.perf_counter(), 0.0
        x_BT, y_BT = self._sequences.take(self.begun * self._count, self._count)
        self.begun += 1
        rate = self._schedule(self.begun)
        self._trainer.begin(x_BT, y_BT, rate)
        spent = self.compiled()
        self._compiled_since += sum(spent.values())
        self._in_flight.append((self.begun, rate, spent))

    def finish(self) -> Finished:
        """Wait for the oldest step in flight. Raises NumericsError where it is not finite."""
        result = self._trainer.result()
        step, rate, spent = self._in_flight.popleft()
        now = time.perf_counter()
        elapsed_s = now - self._since - self._compiled_since
        self._since, self._compiled_since = now, 0.0
        return Finished(step, rate, result, elapsed_s, spent)
