"""Say and write down what happens in a run: a line for people, a record in metrics.jsonl.

The lines go to a Reporter, the records to a MetricsFile; neither ever stops the run.
"""

import dataclasses
import time
from typing import Any

from harness.plugins.compile_clock import WORTH_A_LINE_S
from harness.run.metrics import MetricsFile
from harness.run.progress import Reporter, StepRecord
from harness.run.step_queue import Finished
from harness.training.trainer import Trainer


class RunLog:
    """The lines and records of a run.

    steps: of the whole run. every: steps from one line to the next; a record is written of each.
    """

    def __init__(
        self, reporter: Reporter, metrics: MetricsFile, trainer: Trainer, steps: int, every: int
    ) -> None:
        self._reporter, self._metrics = reporter, metrics
        self._steps, self._every = steps, every
        self._tokens_per_step = trainer.plan.tokens_per_step
        settings = trainer.settings
        self._flops_per_token = settings.model.flops_per_token(settings.sequence_length)
        self._peak_flops_per_s = _peak_flops_per_s(trainer)
        self._started_s, self._first = time.perf_counter(), 0

    def line(self, text: str) -> None:
        self._reporter.line(text)

    def record(self, kind: str, step: int, **values: Any) -> None:
        self._metrics.write({"kind": kind, "step": step, **values})

    def drop_records_after(self, step: int) -> None:
        """Drop the records after a step that the run goes on from: it makes them anew."""
        self._metrics.truncate_after(step)

    def start_clock(self, step: int) -> None:
        """Training begins now, after so many steps."""
        self._started_s, self._first = time.perf_counter(), step

    @property
    def elapsed_s(self) -> float:
        """Seconds since training began."""
        return time.perf_counter() - self._started_s

    def compiling(self, backend: str, done: int, count: int) -> None:
        """Said before the first of so many kernels is compiled, and after each."""
        self._reporter.compiling(backend, done, count)

    def compiled(self, spent: dict[str, float], step: int) -> None:
        """spent: backend -> seconds of compiling."""
        for name, seconds in spent.items():
            if seconds >= WORTH_A_LINE_S:
                self.line(f"compiled  kernels of {name} in {seconds:.1f} s")
            self.record("compiling", step, backend=name, seconds=seconds)

    def step(self, finished: Finished, compiling_s: float) -> None:
        """A step whose result is known. compiling_s: so far, not counted in the time left."""
        self.compiled(finished.compiled, finished.step)
        spent_s = self.elapsed_s - compiling_s
        per_step_s = spent_s / (finished.step - self._first)
        record = self._record(finished, per_step_s * (self._steps - finished.step))
        skipped = finished.result.skipped
        self._metrics.write({"kind": "step", **dataclasses.asdict(record), "skipped": skipped})
        if finished.step % self._every == 0 or finished.step == self._steps:
            self._reporter.step(record)
        if skipped:
            self.line(f"skipped   step {finished.step} is not finite; no update was made")

    def _record(self, finished: Finished, eta_s: float) -> StepRecord:
        tokens_per_s = self._tokens_per_step / finished.elapsed_s
        peak = self._peak_flops_per_s
        return StepRecord(
            step=finished.step,
            steps=self._steps,
            loss=finished.result.loss,
            grad_norm=finished.result.grad_norm,
            learning_rate=finished.rate,
            step_ms=1e3 * finished.elapsed_s,
            tokens_per_s=tokens_per_s,
            mfu=None if peak is None else tokens_per_s * self._flops_per_token / peak,
            eta_s=eta_s,
        )


def _peak_flops_per_s(trainer: Trainer) -> float | None:
    """The matmul peak measured on this machine, or None: `harness bench peaks` measures it."""
    if trainer.plan.home.device != "host":
        return None
    from harness.machine.peaks import cached_peaks

    peaks = cached_peaks()
    return peaks.best.matmul_flops_per_s if peaks else None
