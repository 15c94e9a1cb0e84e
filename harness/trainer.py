"""Train a GPT-2: forward, backward and update of each step, and validation. No files, no printing.

trainer = Trainer(settings, all_ops())
result = trainer.step(x_BT, y_BT, learning_rate=1e-3)
"""

import math
from collections.abc import Iterable
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from harness.contract import OpTable
from harness.decoder import Decoder, NextToken, Recomputer
from harness.device import HOST
from harness.dispatch import Choice, Dispatch
from harness.errors import ConfigError, NumericsError
from harness.executor import Executor
from harness.interchange.model_file import ModelFile
from harness.memory import ArenaUse
from harness.memory_need import MemoryNeed, host_bytes, lasting_bytes
from harness.models.gpt2 import GPT2, Adapter, build
from harness.op_errors import naming_the_op
from harness.optimizer import Optimizer, OptimizerSettings
from harness.parameters import Parameters, make_layout
from harness.plan import Plan
from harness.planner import make_plan
from harness.plugins import load_wrapper
from harness.precision import Precision
from harness.scratch import MOST_BYTES


@dataclass(frozen=True)
class TrainerSettings:
    """What a step of training is.

    batch_size: sequences per micro-batch; gradient_accumulation: micro-batches per step.
    loss_gradient: `mean` over the step's targets, or `sum`.
    clip_norm: the largest global norm of the gradient; None computes no norm at all, and a
        non-finite gradient is then only seen in the next loss.
    on_nonfinite: `stop` before the update, or `skip` it.
    recompute: which activations are computed again in the backward: `none`, `gelu` or `block`.
    scratch_bytes: the most that an op takes in between, where it can work in pieces.
    adapter: what is trained in the place of the model's own weights, which are then frozen.
    """

    model: GPT2
    batch_size: int
    sequence_length: int
    ops: dict[str, str | None]
    optimizer: OptimizerSettings = field(default_factory=OptimizerSettings)
    precision: Precision = field(default_factory=Precision)
    gradient_accumulation: int = 1
    clip_norm: float | None = 1.0
    loss_gradient: str = "mean"
    transfer: str = "refuse"
    recompute: str = "none"
    scratch_bytes: int = MOST_BYTES
    on_nonfinite: str = "stop"
    wrappers: tuple[str, ...] = ()
    seed: int = 0
    adapter: Adapter | None = None


@dataclass(frozen=True)
class StepResult:
    """loss: mean over the step's targets, in nats. grad_norm: before clipping, None where it was not
    computed. skipped: the step was not finite, and no update was made.
    """

    loss: float
    grad_norm: float | None
    skipped: bool = False


class TrainingPlan:
    """What a step of training will be, before any memory is taken: `harness plan` prints it.

    Raises the errors of plan and plugins.
    """

    def __init__(self, settings: TrainerSettings, ops: OpTable) -> None:
        self.settings = settings
        self.ops = ops
        self.dispatch = Dispatch(ops, settings.ops)
        self.wrappers: tuple[Any, ...] = tuple(load_wrapper(n, ops) for n in settings.wrappers)
        self.optimizer_choices: tuple[Choice, ...] = tuple(
            self.dispatch.choose(hook) for hook in (settings.optimizer.op, "squared_norm")
        )
        self.home = self.optimizer_choices[0].backend
        self.plan = self.plan_for(settings.batch_size, settings.sequence_length)
        self.layout = make_layout(self.plan.program)

    @property
    def tokens_per_step(self) -> int:
        settings = self.settings
        return settings.batch_size * settings.sequence_length * settings.gradient_accumulation

    @property
    def arena_bytes(self) -> dict[str, int]:
        """The flat arenas at home: parameters, gradients, moments."""
        trained = dict.fromkeys(("gradient", *self.settings.optimizer.moments), self.layout.trained)
        counts = {"parameter": self.layout.total, **trained}
        return {name: count * 4 for name, count in counts.items()}

    @property
    def peak_bytes(self) -> dict[str, int]:
        """What a step holds at home, by what it is for."""
        home, arenas = self.plan.home, self.arena_bytes
        use = self.plan.arenas.get(home, ArenaUse(0, 0, 0))
        moments = sum(n for name, n in arenas.items() if name not in ("parameter", "gradient"))
        return {
            "parameters": arenas["parameter"],
            "gradients": arenas["gradient"],
            "moments": moments,
            "activations": use.nbytes - use.scratch,
            "scratch": use.scratch,
            "inputs and copies": lasting_bytes(self.plan, home),
        }

    @property
    def hooks(self) -> tuple[str, ...]:
        """Every half-op that a step runs."""
        return tuple(dict.fromkeys((*self.plan.hooks, self.settings.optimizer.op, "squared_norm")))

    def plan_for(
        self,
        B: int,
        T: int,
        head: str = "loss",
        train: bool = True,
        recompute: str | None = None,
    ) -> Plan:
        """The plan of this trainer's model at another batch or length, or without a backward."""
        settings = self.settings
        program, result = build(self.ops, settings.model, B, T, head=head, adapter=settings.adapter)
        return make_plan(
            program,
            result,
            self.dispatch,
            self.settings.precision,
            train=train,
            home=self.home.device,
            transfer=self.settings.transfer,
            recompute=settings.recompute if recompute is None else recompute,
            scratch_bytes=settings.scratch_bytes,
        )


class Trainer(TrainingPlan):
    """A model with its plan, buffers and optimizer.

    source: a stored model that training begins with.
    Raises the errors of plan and plugins, and ResourceError where the memory will not do.
    """

    def __init__(
        self, settings: TrainerSettings, ops: OpTable, source: ModelFile | None = None
    ) -> None:
        _check_state_fits(settings)
        super().__init__(settings, ops)
        self.memory = MemoryNeed(self._ways_out)
        self._add_needs()
        device = HOST if self.home.device == "host" else self.home.open_device()
        self.parameters = Parameters(self.plan.program, device)
        self.parameters.initialise(settings.seed, source)
        with self._naming_the_op():
            self.executor = Executor(self.plan, self.parameters, self.wrappers)
            self.optimizer = Optimizer(
                settings.optimizer, self.parameters, self.dispatch, self.wrappers
            )
        self.given_updates = 0  # that the moments had seen before this run
        self._position_B = np.zeros(settings.batch_size, np.int32)
        self.executor.write("position", self._position_B)
        rows = settings.batch_size * settings.sequence_length
        self._seed_N = np.zeros(rows, np.float32)
        # What a step reads back: it takes no memory of its own.
        self._loss_N = self.executor.read()
        self._wide_N = np.zeros(self._loss_N.shape, np.float64)
        self._counted_BT = np.zeros((settings.batch_size, settings.sequence_length), bool)

    def _naming_the_op(self) -> AbstractContextManager[None]:
        return naming_the_op(self.dispatch.backends, self.wrappers)

    def _add_needs(self) -> None:
        """What the step takes of the host; a device that is not the host has its own limits."""
        arenas = self.arena_bytes
        saved = sum(n for name, n in arenas.items() if name != "gradient")
        if self.home.device == "host":
            what = f"parameters and their {', '.join(n for n in arenas if n != 'parameter')}"
            self.memory.add(what, sum(arenas.values()))
        self.memory.add("a copy of the state while a checkpoint is written", saved)
        self.memory.add("activations", host_bytes(self.plan))
        self.memory.check(self.plan)

    def _ways_out(self, needed: int, available: int) -> list[str]:
        return ways_out(self.settings, needed, available, host_bytes(self.plan))

    def another(self, B: int, T: int, head: str = "loss") -> Executor:
        """A forward of the same parameters at another batch or length: validation, samples."""
        plan = self.plan_for(B, T, head, train=False)
        self.memory.add(f"activations of a forward of {B} x {T} tokens", host_bytes(plan))
        self.memory.check(plan)
        with self._naming_the_op():
            executor = Executor(plan, self.parameters, self.wrappers)
        executor.write("position", np.zeros(B, np.int32))
        return executor

    def decoder(self, B: int = 1, capacity: int | None = None, cache: bool = True) -> NextToken:
        """Rows of text to be continued by the same parameters, as they are whenever one starts.

        capacity: the most tokens of a row. cache: False computes each text anew for each token.
        """
        settings = self.settings
        return (Decoder if cache else Recomputer)(
            settings.model,
            self.parameters,
            self.dispatch,
            B=B,
            capacity=capacity,
            precision=settings.precision,
            adapter=settings.adapter,
            wrappers=self.wrappers,
            transfer=settings.transfer,
            memory=self.memory,
        )

    def step(self, x_BT: np.ndarray, y_BT: np.ndarray, learning_rate: float) -> StepResult:
        """One optimizer step on gradient_accumulation * batch_size sequences.

        x_BT, y_BT: int32 tokens and targets (-1 is ignored), micro-batches one after another.
        Raises NumericsError, before the update, where loss or gradient is not finite, and
        PluginError where an op raises.
        """
        with self._naming_the_op():
            return self._step(x_BT, y_BT, learning_rate)

    def _step(self, x_BT: np.ndarray, y_BT: np.ndarray, learning_rate: float) -> StepResult:
        counted = self._count(y_BT)
        weight = 1.0 if self.settings.loss_gradient == "sum" else 1.0 / max(1, counted)
        self._seed_N.fill(weight)
        self.executor.seed(self._seed_N)
        loss_sum = 0.0
        for micro in range(self.settings.gradient_accumulation):
            self._write_micro_batch(micro, x_BT, y_BT)
            self.executor.forward()
            loss_sum += self._summed_loss()
            self.executor.backward(first=micro == 0)
        self.executor.gather()
        loss = loss_sum / max(1, counted)
        clip_norm = self.settings.clip_norm
        norm = None if clip_norm is None else self.optimizer.gradient_norm()
        if not math.isfinite(loss) or (norm is not None and not math.isfinite(norm)):
            if self.settings.on_nonfinite == "skip":
                return StepResult(loss, norm, skipped=True)
            raise self._nonfinite(loss, norm, x_BT, y_BT)
        scale = 1.0 if norm is None or clip_norm is None else min(1.0, clip_norm / (norm + 1e-6))
        self.optimizer.step(learning_rate, scale)
        self.executor.refresh()
        return StepResult(loss, norm)

    def _count(self, y_BT: np.ndarray) -> int:
        """The targets of a step."""
        counted = 0
        for micro in range(self.settings.gradient_accumulation):
            np.greater_equal(y_BT[self._rows(micro)], 0, out=self._counted_BT)
            counted += int(np.count_nonzero(self._counted_BT))
        return counted

    def _summed_loss(self) -> float:
        """The sum of the losses of all rows, in double."""
        np.copyto(self._wide_N, self.executor.read(into=self._loss_N))
        return float(self._wide_N.sum())

    def _rows(self, micro: int) -> slice:
        B = self.settings.batch_size
        return slice(micro * B, (micro + 1) * B)

    def _write_micro_batch(self, micro: int, x_BT: np.ndarray, y_BT: np.ndarray) -> None:
        rows = self._rows(micro)
        self.executor.write("tokens", x_BT[rows])
        self.executor.write("targets", y_BT[rows])

    def _nonfinite(
        self, loss: float, norm: float | None, x_BT: np.ndarray, y_BT: np.ndarray
    ) -> NumericsError:
        culprit = None
        for micro in range(self.settings.gradient_accumulation):
            self._write_micro_batch(micro, x_BT, y_BT)
            culprit = culprit or self.executor.first_nonfinite()
        step = self.optimizer.t + 1 - self.given_updates
        return NumericsError(
            f"step {step} is not finite: loss {loss}, gradient norm {norm}",
            slug="not-finite",
            first_op=culprit or "none when the step was run again: its cause is not in its numbers",
            effect="the update was not made; weights and checkpoints hold what they held",
            do="a lower optimizer.lr, clip_norm=1, or on_nonfinite=skip to leave such steps out",
        )

    def mean_loss(
        self, executor: Executor, batches: Iterable[tuple[np.ndarray, np.ndarray]]
    ) -> float:
        """The mean loss over batches that fit the executor, in nats per token."""
        # Its casts and copies of the parameters are its own, and training has moved these since.
        executor.refresh()
        total, counted = 0.0, 0
        for x_BT, y_BT in batches:
            executor.write("tokens", x_BT)
            executor.write("targets", y_BT)
            with self._naming_the_op():
                executor.forward()
            total += float(executor.read().sum(dtype=np.float64))
            counted += int((y_BT >= 0).sum())
        if not counted:
            raise ConfigError("there is nothing to validate on", slug="no-validation-data")
        return total / counted

    def state(self) -> dict[str, dict[str, np.ndarray]]:
        """All that training changes, as NumPy arrays: weights, and the optimizer's moments."""
        moments = {
            f"{moment}.{name}": array
            for moment in self.settings.optimizer.moments
            for name, array in self.parameters.to_host(moment).items()
        }
        return {"model": self.parameters.to_host(), "optimizer": moments}

    def restore(self, tensors: dict[str, dict[str, np.ndarray]], updates: int) -> None:
        """Take over a state. updates: how many optimizer steps it has had."""
        self.parameters.from_host(tensors["model"])
        for moment in self.settings.optimizer.moments:
            prefix = f"{moment}."
            arrays = {
                name.removeprefix(prefix): array
                for name, array in tensors.get("optimizer", {}).items()
                if name.startswith(prefix)
            }
            self.parameters.from_host(arrays, moment)
        self.optimizer.t = updates
        self.executor.refresh()


def ways_out(settings: TrainerSettings, needed: int, available: int, activations: int) -> list[str]:
    """How to need less memory, as it is typed; what helps most comes first."""
    B, micro = settings.batch_size, settings.gradient_accumulation
    fixed = needed - activations
    found = []
    if fixed < available:
        # Half for the step, half for validation and samples, which the check may not have come to.
        fits = max(1, B * (available - fixed) // max(1, 2 * activations))
        if fits < B:
            again = -(-B // fits) * micro
            found.append(
                f"batch_size={fits} gradient_accumulation={again}   the same step in parts"
            )
        if settings.sequence_length > 1:
            found.append(f"sequence_length={settings.sequence_length // 2}")
    found.append("a smaller model: model.layers, model.channels, or another preset")
    if settings.optimizer.moments:
        found.append("optimizer=sgd optimizer.momentum=0   no moments")
    return found


def _check_state_fits(settings: TrainerSettings) -> None:
    """Before the plan, because that of a model far too large takes minutes."""
    model, moments = settings.model, len(settings.optimizer.moments)
    numbers = model.parameters * (1 + moments)
    if settings.adapter is not None:
        numbers = model.parameters + settings.adapter.parameters(model) * (1 + moments)
    need = MemoryNeed(lambda needed, available: ways_out(settings, needed, available, 0))
    need.add(f"the state of {model.parameters:,} parameters", 4 * numbers)
    need.check()
