"""Measure a model on the tokens that a run holds back, and beside what counting reaches on them."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from harness.data import Dataset, Sequences, ngram_losses
from harness.run.log import RunLog
from harness.run.signals import StopRequest
from harness.training.trainer import Trainer


@dataclass(frozen=True)
class Validated:
    """loss: the mean over so many tokens, the first ones of the split, in nats per token."""

    loss: float
    tokens: int


class Validation:
    """The validation split of a run. Its forward takes its memory when it is made.

    Where the split is too short for a sequence there is nothing to measure, and nothing is said.
    """

    def __init__(self, trainer: Trainer, data: Dataset) -> None:
        self._trainer, self._data = trainer, data
        settings, tokens = trainer.settings, data.validation
        self._T = settings.sequence_length
        self._sequences: Sequences | None = None
        if len(tokens) > self._T:
            self._sequences = Sequences(tokens, self._T, settings.seed, shuffle=False)
            self._B = min(settings.batch_size, self._sequences.per_epoch)
            self._executor = trainer.another(self._B, self._T)

    def run(
        self, step: int, batches: int | None, log: RunLog, stop: StopRequest
    ) -> Validated | None:
        """The loss over so many batches (None: all); None where there is no split or a signal came."""
        if self._sequences is None:
            return None
        whole = self._sequences.per_epoch // self._B
        count = whole if batches is None else min(batches, whole)
        loss = self._trainer.mean_loss(self._executor, self._batches(self._sequences, count, stop))
        if stop.signal is not None:
            return None
        tokens = count * self._B * self._T
        log.record("validation", step, loss=loss)
        log.line(f"validation  step {step}  loss {loss:.4f}  ({tokens:,} tokens)")
        return Validated(loss, tokens)

    def _batches(
        self, sequences: Sequences, count: int, stop: StopRequest
    ) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        for i in range(count):
            yield sequences.take(i * self._B, self._B)
            if stop.signal is not None:
                return

    def compare(self, step: int, validated: Validated, log: RunLog) -> None:
        """The final loss beside what counting alone reaches on the same tokens."""
        tokens = self._data.validation[: validated.tokens + 1]
        counted = ngram_losses(self._data.train, tokens, self._data.vocab_size)
        losses = {**counted, "this model": validated.loss}
        log.record("baselines", step, **losses)
        log.line("validation loss, nats per token")
        for name, value in losses.items():
            log.line(f"  {name:<12}{value:.4f}")
