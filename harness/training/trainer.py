"""Train a GPT-2: forward, backward and update of each step, and validation. No files, no printing.

trainer = Trainer(settings, all_ops())
result = trainer.step(x_BT, y_BT, learning_rate=1e-3)

trainer.begin(x_BT, y_BT, learning_rate=1e-3)     the same in two: ask the device for a step,
result = trainer.result()                         and wait for its loss
"""

import math
from collections import deque
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from dataclasses import dataclass

import numpy as np

from harness.contract import OpTable
from harness.decoding.decoder import Decoder, NextToken, Recomputer
from harness.device import HOST, reads_late
from harness.errors import ConfigError, NumericsError
from harness.execution.executor import Executor
from harness.execution.parameters import Parameters, bf16_weight_bytes
from harness.models.model_file import ModelFile
from harness.planning.memory_budget import host_bytes
from harness.plugins.op_errors import naming_the_op
from harness.training.device_step import DeviceStep, why_not_captured
from harness.training.memory_checks import (
    check_devices,
    check_forward,
    check_state_fits,
    need_of_step,
)
from harness.training.micro_batches import MicroBatches
from harness.training.optimizer import Optimizer
from harness.training.training_plan import TrainerSettings, TrainingPlan


@dataclass(frozen=True)
class StepResult:
    """loss: mean over the step's targets, in nats. grad_norm: before clipping, None where it was not
    computed. skipped: the step was not finite, and no update was made.
    """

    loss: float
    grad_norm: float | None
    skipped: bool = False


@dataclass(frozen=True)
class _Begun:
    """A step whose result was not read yet. losses: for each micro-batch a call that sums its losses."""

    tokens: np.ndarray
    targets: np.ndarray
    counted: int
    losses: list[Callable[[], float]]
    norm: Callable[[], float] | None


class Trainer:
    """A model with its plan, buffers and optimizer.

    source: a stored model that training begins with.
    Holds `plan`, what a step was planned to be; `memory`, what the run needs of the host; `executor`,
    the calls of a step bound to their buffers; `optimizer` and `device_step`.
    Raises the errors of plan and plugins, and ResourceError where the memory will not do.
    """

    def __init__(
        self, settings: TrainerSettings, ops: OpTable, source: ModelFile | None = None
    ) -> None:
        check_state_fits(settings)
        self.settings = settings
        self.plan = plan = TrainingPlan(settings, ops)
        self.memory = need_of_step(plan)
        check_devices(plan)
        device = HOST if plan.home.device == "host" else plan.home.open_device()
        self.parameters = Parameters(plan.calls.program, device)
        self.parameters.initialise(settings.seed, source)
        with self._naming_the_op():
            self.executor = Executor(plan.calls, self.parameters, plan.wrappers)
            self.optimizer = Optimizer(
                settings.optimizer,
                self.parameters,
                plan.dispatch,
                plan.wrappers,
                settings.clip_norm,
            )
            self.device_step = DeviceStep(
                self.executor,
                self.optimizer,
                settings.gradient_accumulation,
                why_not_captured(plan, device),
            )
        self.given_updates = 0  # that the moments had seen before this run
        B, T = settings.batch_size, settings.sequence_length
        self.micro_batches = MicroBatches(self.executor, settings.gradient_accumulation, B, T)
        self._seed_N = np.zeros(B * T, np.float32)
        self._begun: deque[_Begun] = deque()

    def _naming_the_op(self) -> AbstractContextManager[None]:
        return naming_the_op(self.plan.dispatch.backends, self.plan.wrappers)

    def another(self, B: int, T: int, head: str = "loss") -> Executor:
        """A forward of the same parameters at another batch or length: validation, samples."""
        plan = self.plan.calls_for(B, T, head, train=False)
        need = host_bytes(plan) + bf16_weight_bytes(plan, self.parameters)
        what = f"activations of a forward of {B} x {T} tokens"
        self.memory.add(what, need)
        self.memory.check(plan)
        check_forward(self.plan, plan, what)
        with self._naming_the_op():
            executor = Executor(plan, self.parameters, self.plan.wrappers)
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
            self.plan.dispatch,
            B=B,
            capacity=capacity,
            precision=settings.precision,
            adapter=settings.adapter,
            wrappers=self.plan.wrappers,
            transfer=settings.transfer,
            memory=self.memory,
        )

    @property
    def results_late(self) -> int:
        """How many steps may be begun before the result of an earlier one is read: 1 or 0.

        0 where the device waits whenever something is read, and where a step may have to be skipped.
        """
        devices = (self.parameters.device, self.executor.result()[0])
        late = all(reads_late(device) for device in devices)
        return int(late and self.settings.on_nonfinite == "stop")

    def step(self, x_BT: np.ndarray, y_BT: np.ndarray, learning_rate: float) -> StepResult:
        """One optimizer step on gradient_accumulation * batch_size sequences: `begin` and `result`."""
        assert not self._begun, "the result of the step before was not read"
        self.begin(x_BT, y_BT, learning_rate)
        return self.result()

    def begin(self, x_BT: np.ndarray, y_BT: np.ndarray, learning_rate: float) -> None:
        """Ask the device for a step.

        x_BT, y_BT: int32 tokens and targets (-1 is ignored), micro-batches one after another. They are
        kept until the result is read, and must not be changed before.
        Raises PluginError where an op raises.
        """
        assert len(self._begun) <= self.results_late, "more results than that must not be waiting"
        with self._naming_the_op():
            self._begun.append(self._begin(x_BT, y_BT, learning_rate))

    def _begin(self, x_BT: np.ndarray, y_BT: np.ndarray, learning_rate: float) -> _Begun:
        counted = self.micro_batches.targets(y_BT)
        weight = 1.0 if self.settings.loss_gradient == "sum" else 1.0 / max(1, counted)
        self._seed_N.fill(weight)
        self.executor.seed(self._seed_N)
        self.optimizer.begin(learning_rate)
        self.device_step.begin()
        losses = []
        for micro in range(self.micro_batches.count):
            self.micro_batches.write(micro, x_BT, y_BT)
            self.device_step.micro_batch(micro)
            losses.append(self.micro_batches.loss())
        self.device_step.update()
        return _Begun(x_BT, y_BT, counted, losses, self.optimizer.norm())

    def result(self) -> StepResult:
        """The result of the oldest step whose result was not read.

        Raises NumericsError where its loss or gradient is not finite. The device then made no update,
        neither of this step nor of one begun since.
        """
        begun = self._begun.popleft()
        loss = sum(read() for read in begun.losses) / max(1, begun.counted)
        norm = None if begun.norm is None else begun.norm()
        if math.isfinite(loss) and (norm is None or math.isfinite(norm)):
            return StepResult(loss, norm)
        self._take_back(1 + len(self._begun))
        if self.settings.on_nonfinite == "skip":
            return StepResult(loss, norm, skipped=True)
        with self._naming_the_op():
            raise self._nonfinite(loss, norm, begun)

    def _take_back(self, steps: int) -> None:
        """Do not count the updates of the last steps, which the device did not make."""
        self._begun.clear()
        self.optimizer.t -= steps
        self.optimizer.reset()
        # Their refresh may have rounded the weights anew, though these are the same.
        self.executor.refresh()

    def _nonfinite(self, loss: float, norm: float | None, begun: _Begun) -> NumericsError:
        culprit = self.micro_batches.first_nonfinite(begun.tokens, begun.targets)
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
        assert not self._begun, "a state is that after a step whose result is known"
        moments = {
            f"{moment}.{name}": array
            for moment in self.settings.optimizer.moments
            for name, array in self.parameters.to_host(moment).items()
        }
        return {"model": self.parameters.to_host(), "optimizer": moments}

    def restore(self, tensors: dict[str, dict[str, np.ndarray]], updates: int) -> None:
        """Take over a state. updates: how many optimizer steps it has had."""
        assert not self._begun, "the result of the step before was not read"
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
