"""What a device does in a training step, without the host: forward, backward, norm, clip, update.

    step.micro_batch(0)     forward, guard, backward; of the last one, or by itself, the update too
    step.update()

Nothing is read back in between: a loss or a gradient that is not finite makes the clip scale NaN on the
device, and the optimizer's ops then change nothing. After a few steps the calls are captured, where the
device can do that, and replayed from then on.
"""

from typing import Any

import numpy as np

from harness.device import Device
from harness.execution.executor import Bound, Executor
from harness.planning.plan import Plan
from harness.training.optimizer import Optimizer
from harness.training.training_plan import TrainingPlan

EAGER_STEPS = 3
"""Steps before the capture: in the first ones libraries choose their kernels and take their memory."""


class Segment:
    """Calls that are run one after another; once captured, as one."""

    def __init__(self, *calls: Bound) -> None:
        self._calls = calls
        self._replay: Bound | None = None

    def capture(self, device: Any) -> bool:
        """Record the calls without running them. Returns whether the device could."""
        self._replay = device.capture(self._calls)
        return self._replay is not None

    def __call__(self) -> None:
        if self._replay is not None:
            self._replay()
            return
        for call in self._calls:
            call()


class DeviceStep:
    """The calls of a step in segments. off: why they are not captured; None where they will be."""

    def __init__(
        self, executor: Executor, optimizer: Optimizer, micro_batches: int, off: str | None
    ) -> None:
        self.off = off
        self._home = executor.parameters.device
        self._begun = 0
        guard = _guard(executor, optimizer)
        update = (executor.gather, optimizer.update, executor.refresh)
        first = (executor.forward, guard, executor.backward)
        later = (executor.forward, guard, lambda: executor.backward(first=False))
        self._whole = micro_batches == 1
        self._segments = (
            [Segment(*first, *update)]
            if self._whole
            else [Segment(*first), Segment(*later), Segment(*update)]
        )

    @property
    def capture(self) -> str:
        """What is captured and when, or why nothing is, for the run's header."""
        return f"off: {self.off}" if self.off else f"the step, after {EAGER_STEPS} steps"

    def begin(self) -> None:
        """Once before the micro-batches of each step; after the first few steps it captures them."""
        if self._begun == EAGER_STEPS and self.off is None:
            captured = [segment.capture(self._home) for segment in self._segments]
            if not all(captured):
                self.off = f"the device {self._home.name} refuses"
        self._begun += 1

    def micro_batch(self, number: int) -> None:
        """Forward and backward of what the inputs hold; of a single micro-batch the update too."""
        self._segments[min(number, 1)]()

    def update(self) -> None:
        if not self._whole:
            self._segments[-1]()


def why_not_captured(plan: TrainingPlan, home: Any) -> str | None:
    """What keeps a step from being captured, in words; None where nothing does."""
    if plan.settings.capture == "off":
        return "capture=off"
    copies = len(plan.calls.copies) + int(_loss_is_elsewhere(plan.calls))
    if copies:
        return f"{copies} {'copy' if copies == 1 else 'copies'} between devices"
    if not hasattr(home, "capture"):
        return f"the device {home.name} has no graphs"
    choices = [*(step.choice for step in plan.calls.steps), *plan.optimizer_choices]
    backends = [choice.backend for choice in choices if choice is not None]
    unstated = sorted({backend.name for backend in backends if not backend.capturable})
    if unstated:
        return f"{', '.join(unstated)} does not state that it is capturable"
    if plan.wrappers:
        return "a wrapper is to see every call"
    if home.capture(()) is None:
        return f"the device {home.name} refuses, as it is set"
    return None


def _loss_is_elsewhere(plan: Plan) -> bool:
    return plan.results[0].version.device != plan.home


def _guard(executor: Executor, optimizer: Optimizer) -> Bound:
    """The guard of the losses; where they are not at home, they are copied there first."""
    device, loss_N = executor.result()
    view = executor.plan.results[0]
    count = view.version.tensor.size
    if not _loss_is_elsewhere(executor.plan):
        return optimizer.bind_guard(loss_N, count)
    home: Device = executor.parameters.device
    staging = np.empty(view.shape, np.float32)
    copied_N = home.view(home.empty(staging.nbytes), 0, view.shape, staging.dtype)
    guard = optimizer.bind_guard(copied_N, count)

    def copy_and_guard() -> None:
        device.to_host(staging, loss_N)
        home.from_host(copied_N, staging)
        guard()

    return copy_and_guard
