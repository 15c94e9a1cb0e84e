"""Our side of `harness bench train`, inside its process: a trainer, and its half-ops one by one."""

import itertools
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from harness.bench import op_times
from harness.bench.waterfall import works_of
from harness.config import command_line
from harness.config.config import RunConfig, model_of, trainer_settings
from harness.machine.threads import use_threads
from harness.plugins.loading import all_ops
from harness.training.trainer import Trainer
from harness.training.training_plan import TrainerSettings, TrainingPlan

OP_TIMES = Path(op_times.__file__)


def prepare(spec: dict[str, Any]) -> str:
    """Import the backends and make the plan: what they hold is not counted as the model's memory."""
    TrainingPlan(_configured(spec)[1], all_ops())
    return ""


def build(spec: dict[str, Any]) -> "Ours":
    return Ours(spec)


class Ours:
    """spec: overrides, of which the configuration is made; vocab_size; batches, a file; its shape;
    learning_rate.
    """

    def __init__(self, spec: dict[str, Any]) -> None:
        self.config, self.settings = _configured(spec)
        self.learning_rate = spec["learning_rate"]
        self.batches = np.fromfile(spec["batches"], np.int32).reshape(spec["shape"])
        self.trainer: Trainer | None = Trainer(self.settings, all_ops())
        use_threads(self.config.threads, self.trainer.plan.dispatch.backends)
        self._stream = itertools.cycle(self.batches)
        precision = self.settings.precision
        self.bf16 = "bf16" in (precision.policy, *precision.of_op.values())
        self.what = self._described(self.trainer)

    def _described(self, trainer: Trainer) -> str:
        chosen = ", ".join(backend.name for backend in trainer.plan.dispatch.backends)
        expanded = ", ".join(trainer.plan.calls.expanded) or "none"
        parts = [f"{chosen}; fused ops expanded: {expanded}"]
        if self.settings.recompute != "none":
            parts.append(f"recompute {self.settings.recompute}")
        if trainer.plan.home.device != "host":
            off = trainer.device_step.off
            parts.append("captured" if off is None else f"not captured: {off}")
        for backend in trainer.plan.dispatch.backends:
            describe = backend.functions.get("describe_libraries")
            if describe is not None:
                parts.append(f"{backend.name}: {describe()}")
        return "; ".join(parts)

    def step(self) -> float:
        assert self.trainer is not None, "the trainer has been let go"
        x_BT, y_BT = next(self._stream)
        return self.trainer.step(x_BT, y_BT, self.learning_rate).loss

    def run(self, steps: int) -> tuple[list[float], list[float]]:
        """The seconds and losses of so many steps, as a run takes them.

        Where results may be read late, a step is begun before the loss of the one before is waited for.
        """
        trainer = self.trainer
        assert trainer is not None, "the trainer has been let go"
        seconds: list[float] = []
        losses: list[float] = []
        last = time.perf_counter()
        for begun in range(1, steps + 1):
            x_BT, y_BT = next(self._stream)
            trainer.begin(x_BT, y_BT, self.learning_rate)
            while len(losses) < begun - (trainer.results_late if begun < steps else 0):
                losses.append(trainer.result().loss)
                last, before_s = time.perf_counter(), last
                seconds.append(last - before_s)
        return seconds, losses

    def device_bytes(self) -> int | None:
        """What the plan takes of a device that is not the host: its peak, as nothing else is taken."""
        if self.trainer is None or self.trainer.plan.home.device == "host":
            return None
        return sum(self.trainer.plan.peak_bytes.values())

    def waterfall(self, steps: int) -> dict[str, Any]:
        """One step, the median one of so many, half-op by half-op; the plain trainer is let go.

        The keys are those of harness.bench.waterfall.waterfall_of.
        """
        self.trainer, self._stream = None, itertools.cycle(self.batches)
        settings = replace(self.settings, wrappers=(*self.settings.wrappers, str(OP_TIMES)))
        trainer = Trainer(settings, all_ops())
        use_threads(self.config.threads, trainer.plan.dispatch.backends)
        times = trainer.plan.wrappers[-1]
        if trainer.plan.home.device != "host":
            times.synchronize = trainer.parameters.device.synchronize
            times.device_seconds = trainer.plan.home.functions.get("device_seconds")
        step_s, spent = [], []
        for x_BT, y_BT in itertools.islice(self._stream, 1 + steps):
            times.spent.clear()
            start = time.perf_counter()
            trainer.step(x_BT, y_BT, self.learning_rate)
            step_s.append(time.perf_counter() - start)
            spent.append(dict(times.spent))
        step_s, spent = step_s[1:], spent[1:]  # the first touches all memory
        # One whole step, the median one: medians of the parts would not add up.
        chosen = int(np.argsort(step_s)[len(step_s) // 2])
        works = works_of(trainer)
        ops = [
            {
                "hook": hook,
                "backend": trainer.plan.dispatch.choose(hook).backend.name,
                "calls": total.calls,
                "seconds": total.seconds,
                "works": [(work.moved_bytes, work.flops) for work in works.get(hook, ())],
            }
            for hook, total in spent[chosen].items()
        ]
        return {"step_s": step_s[chosen], "ops": ops}


def _configured(spec: dict[str, Any]) -> tuple[RunConfig, TrainerSettings]:
    config = command_line.compose(spec["overrides"])
    return config, trainer_settings(config, model_of(config, spec["vocab_size"]))
