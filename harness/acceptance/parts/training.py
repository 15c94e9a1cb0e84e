"""Some steps of training for a part: the same tokens and weights, whatever computes them."""

import gc
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from harness.acceptance.part import Request
from harness.config import command_line
from harness.config.config import model_of, trainer_settings
from harness.machine.nvidia_driver import computed_on_cpu
from harness.plugins.loading import Backend, all_ops
from harness.training.device_step import EAGER_STEPS
from harness.training.trainer import Trainer
from harness.training.training_plan import TrainingPlan

STEPS = 10
SETTLED = EAGER_STEPS + 2
"""Steps after which all that a run takes is taken: some before a graph is captured, and one of it."""

LEARNING_RATE = 3e-4
SMALL = (
    "model=micro", "model.layers=2", "model.heads=4", "model.channels=64", "model.positions=64",
    "model.vocab_size=512", "batch_size=4", "sequence_length=64",
)  # fmt: skip
TINY = (
    "model=micro", "model.layers=1", "model.heads=2", "model.channels=16", "model.positions=8",
    "model.vocab_size=64", "batch_size=2", "sequence_length=8",
)  # fmt: skip


MIXES = {"fast_mix": ("cupy", "numba_cuda")}
"""conf/ops -> the backends that it is made of."""


def chosen(request: Request) -> dict[str, tuple[str, ...]]:
    """Name -> the backends that train under it: each alone, then mixes of them."""
    alone = {name: (name,) for name in request.backends}
    return alone | {mix: of for mix, of in MIXES.items() if set(of) <= set(request.backends)}


def choice(name: str) -> str:
    """The override that chooses a backend, or a mix of them."""
    return f"ops={name}" if name in MIXES else f"backend={name}"


def precisions_of(request: Request, name: str) -> list[str]:
    """The precisions that every backend of it has."""
    first, *others = (request.backends[one]["precisions"] for one in chosen(request)[name])
    return [p for p in first if all(p in other for other in others)]


def small(request: Request) -> tuple[str, ...]:
    """A model for which ten steps in float64 take seconds; in a rehearsal an even smaller one."""
    return TINY if request.rehearsal else SMALL


def gpt2_124m(batch_size: int, sequence_length: int = 1024) -> tuple[str, ...]:
    return (
        "model=gpt2_124m", f"batch_size={batch_size}", f"sequence_length={sequence_length}",
    )  # fmt: skip


@dataclass
class Trained:
    """losses: of each step, in nats. seconds: of each step once a graph may have been captured.

    taken_bytes: of the device, at most. grown_bytes: taken after the first steps. None where the backend
    does not say what is free. planned: what the plan said of a step, by what it is for. off: why the
    steps were not captured; None where they were.
    """

    losses: list[float]
    seconds: list[float]
    taken_bytes: int | None
    grown_bytes: int | None
    planned: dict[str, int]
    off: str | None


def settings_of(overrides: Sequence[str]) -> Any:
    """The trainer's settings of a command line; the vocabulary is the model's own."""
    config = command_line.compose(["data=counting", *overrides])
    return trainer_settings(config, model_of(config, 1))


def batches(settings: Any, steps: int) -> np.ndarray:
    """(steps, 2, sequences, tokens): the same few random sequences again and again, to be learned."""
    rng = np.random.default_rng(0)
    count = settings.batch_size * settings.gradient_accumulation
    shape = (min(steps, 2), count, settings.sequence_length + 1)
    tokens = rng.integers(0, settings.model.vocab_size, shape, np.int32)
    pairs = np.stack([tokens[:, :, :-1], tokens[:, :, 1:]], axis=1)
    return np.ascontiguousarray(pairs[np.arange(steps) % len(pairs)])


def train(overrides: Sequence[str], steps: int = STEPS) -> Trained:
    """Take some steps from the seeded weights. The memory is given back before it returns."""
    settings = settings_of(overrides)
    ops = all_ops()
    home = TrainingPlan(settings, ops).home
    before = _free_bytes(home)
    trainer = Trainer(settings, ops)
    losses: list[float] = []
    seconds: list[float] = []
    free_after: list[int | None] = []
    last = time.perf_counter()
    for begun, (x_BT, y_BT) in enumerate(batches(settings, steps), 1):
        trainer.begin(x_BT, y_BT, LEARNING_RATE)
        # As a run does: the next step begins before this one's loss is read.
        while len(losses) < begun - (trainer.results_late if begun < steps else 0):
            losses.append(float(trainer.result().loss))
            last, before_s = time.perf_counter(), last
            seconds.append(last - before_s)
        free_after.append(None if begun < SETTLED else _free_bytes(home))
    found = Trained(
        losses=losses,
        seconds=seconds[SETTLED:] or seconds,
        taken_bytes=_taken(before, free_after),
        grown_bytes=_grown(free_after),
        planned=dict(trainer.plan.peak_bytes),
        off=trainer.device_step.off,
    )
    del trainer
    gc.collect()
    return found


def _taken(before: int | None, after: Sequence[int | None]) -> int | None:
    known = [free for free in after if free is not None]
    return None if before is None or not known else before - min(known)


def _grown(after: Sequence[int | None]) -> int | None:
    """The memory taken after the first steps, which allocate everything, a graph too: none is right."""
    known = [free for free in after if free is not None]
    return known[0] - min(known) if known else None


def _free_bytes(backend: Backend) -> int | None:
    """What is free of a backend's device, opened; None where it does not say.

    On the CPU that would be the whole machine's memory, which other programs change.
    """
    if backend.device == "host" or "free_bytes" not in backend or computed_on_cpu():
        return None
    backend.open_device().empty(256)  # a context takes memory of its own, once
    return int(backend.functions["free_bytes"]())


def relative_difference(losses: Sequence[float], reference: Sequence[float]) -> float:
    """The largest relative difference of two curves; NaN where one of them has a NaN."""
    one, other = np.array(losses), np.array(reference)
    return float(np.max(np.abs(one - other) / np.abs(other)))
