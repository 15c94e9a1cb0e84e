"""Workers that judge mutants, each in a process of its own: one that hangs or dies is replaced."""

import json
import select
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict

from harness.errors import ResourceError
from harness.machine.child import Child, environment_with_harness
from harness.mutation.mutants import Mutation, mutate
from harness.mutation.mutated_package import Subject
from harness.mutation.report import Fate
from harness.mutation.worker import READY

COMMAND = (sys.executable, "-m", "harness.mutation.worker")
START_S = 120.0
# A mutant that takes this long loops.
MUTANT_S = 180.0
# In a simulator what every op uses is judged on all cases, and each takes seconds.
SLOW_MUTANT_S = 1200.0
LAST_LINES = 4


class Worker:
    """A process that judges one mutant after another, for a limited time each. stop() ends it."""

    def __init__(self, subject: Subject) -> None:
        self.subject = subject
        self.mutation: Mutation | None = None
        # Deleted by stop().
        self._file = tempfile.NamedTemporaryFile("w", suffix=".json", encoding="utf-8")  # noqa: SIM115
        self._file.write(subject.to_json())
        self._file.flush()
        self._start()

    def _start(self) -> None:
        self.child = Child((*COMMAND, self._file.name), environment_with_harness(), asks=True)
        self._ready = False
        self._began_s = time.monotonic()

    def begin(self, mutation: Mutation) -> None:
        self.mutation, self._began_s = mutation, time.monotonic()
        self.child.send(json.dumps(asdict(mutation)))

    def fate(self) -> Fate | None:
        """What became of the mutant; None while it is not known, or where there is none.

        Raises ResourceError where the process cannot start: no mutant was judged then.
        """
        mutation = self.mutation
        if mutation is None:
            return None
        try:
            answer = self._answer()
        except TimeoutError:
            if time.monotonic() - self._began_s < self._limit_s():
                return None
            how = "timeout"
        else:
            how = "crash"
            if answer:
                self.mutation = None
                return Fate(**{**json.loads(answer), "mutation": mutation})
        if not self._ready:
            raise self._not_started()
        spent_s = time.monotonic() - self._began_s
        self.child.end(0.0)
        self._start()
        self.mutation = None
        _, before, after = mutate(self.subject.files[mutation.file], mutation)
        return Fate(mutation, how, "", before, after, spent_s)

    def _answer(self) -> str:
        """Its answer; empty where it has ended. Raises TimeoutError if there is none yet."""
        if not self._ready and self.child.receive(0.0) == READY:
            # The time that the process took to start is not the mutant's.
            self._ready, self._began_s = True, time.monotonic()
        return self.child.receive(0.0) if self._ready else ""

    def _limit_s(self) -> float:
        if not self._ready:
            return START_S
        return SLOW_MUTANT_S if self.subject.slow else MUTANT_S

    def _not_started(self) -> ResourceError:
        return ResourceError(
            "a worker that judges mutants could not be started",
            slug="mutate-worker-died",
            it_said="\n".join(self.child.last_lines(LAST_LINES)) or None,
            effect="nothing was judged",
        )

    def stop(self) -> None:
        self.child.end(0.0)
        self._file.close()


def wait_for_any(workers: Sequence[Worker], limit_s: float) -> None:
    """Wait until one of them says something, or ends, or limit_s is over."""
    outputs = [output for worker in workers if (output := worker.child.process.stdout)]
    select.select(outputs, [], [], limit_s)
