"""One verification: a mix of backends, a stored model, and the state that says what is right."""

import dataclasses
import gc
from collections.abc import Iterator

from harness.config.config import RunConfig, precision_of, trainer_settings
from harness.interchange.llmc.debug_state import LlmcDebugState
from harness.machine.threads import threads_for, using_threads
from harness.models.gpt2 import GPT2
from harness.models.model_file import ModelFile
from harness.plugins import all_ops
from harness.plugins.dispatch import EXPAND
from harness.training.trainer import Trainer
from harness.training.training_plan import TrainerSettings
from harness.verify import steps_check
from harness.verify.bounds import PUBLISHED_STEPS, bounds_for
from harness.verify.difference import Row
from harness.verify.state_check import check_state, loss_row


class Check:
    """What is verified, and the rows of the table in the order in which they are found.

    run: says who computes. steps: how many AdamW steps follow; 0 leaves them out.
    """

    def __init__(
        self, run: RunConfig, source: ModelFile, state: LlmcDebugState, steps: int
    ) -> None:
        self.source, self.state, self.steps = source, state, steps
        self.settings = _settings(run, source.model, state)
        self.threads = threads_for(run.threads)
        self.bounds = bounds_for(precision_of(run), source.dtype.name)
        self.backends: list[str] = []
        self.published = steps <= steps_check.STEPS and steps_check.is_published(
            source.model, state.loss
        )

    def heading(self) -> Iterator[str]:
        """The lines above the table."""
        model, state = self.source.model, self.state
        yield f"model   {self.source.path}: {self.source.description}"
        yield (
            f"        {model.parameters:,} parameters: {model.layers} layers, {model.heads} heads, "
            f"{model.channels} channels, vocabulary {model.vocab_size:,}"
        )
        yield f"state   {state.path}: {state.B} x {state.T} tokens, loss {state.loss:.6f}"
        chosen = [name for name in self.settings.ops.values() if name not in (None, EXPAND)]
        yield f"by      {', '.join(map(str, dict.fromkeys(chosen)))}, {self.settings.precision.policy}"
        yield f"bounds  {self.bounds.reason}"
        yield f"\n{'':12}{'error':>9}{'at most':>9}"

    def rows(self) -> Iterator[Row]:
        """The state's rows, then one for each step."""
        trainer = Trainer(self.settings, all_ops(), self.source)
        backends = trainer.plan.dispatch.backends
        self.backends = [backend.name for backend in backends]
        with using_threads(self.threads.count, backends):
            yield from check_state(trainer, self.state, self.bounds)
            losses = steps_check.losses_of(trainer, self.state.x_BT, self.state.y_BT, self.steps)
        # Its memory is the referee's now, without waiting for the collector.
        del trainer
        gc.collect()
        for number, (found, expected) in enumerate(zip(losses, self._expected(), strict=True), 1):
            yield self._step_row(f"step {number}", found, expected)

    def _expected(self) -> Iterator[float]:
        if self.published:
            return iter(steps_check.PUBLISHED_LOSSES[: self.steps])
        state = self.state
        return steps_check.float64_losses(self.source, state.x_BT, state.y_BT, self.steps)

    def _step_row(self, name: str, found: float, expected: float) -> Row:
        if self.published:
            return loss_row(name, found, expected, 1, PUBLISHED_STEPS, "published")
        # Of the first loss: what training began with, and not what is left of it.
        return loss_row(name, found, expected, self.state.loss, self.bounds.steps, "float64")

    def record(self, rows: list[Row]) -> dict[str, object]:
        """What the report holds."""
        precision = self.settings.precision
        return {
            "model": str(self.source.path),
            "description": self.source.description,
            "state": str(self.state.path),
            "B": self.state.B,
            "T": self.state.T,
            "ops": {key: name for key, name in self.settings.ops.items() if name is not None},
            "backends": self.backends,
            "threads": self.threads.count,
            "precision": {"policy": precision.policy, **precision.of_op},
            "bounds": self.bounds.reason,
            "ok": all(row.ok for row in rows),
            "rows": [row.record() for row in rows],
        }


def _settings(run: RunConfig, model: GPT2, state: LlmcDebugState) -> TrainerSettings:
    return dataclasses.replace(
        trainer_settings(run, model),
        batch_size=state.B,
        sequence_length=state.T,
        optimizer=steps_check.RECIPE,
        clip_norm=None,
    )
