"""Run a plan: take the memory, bind every call once, then do nothing but call.

A bound call is a plain function with its buffers; a step of training is a loop over them. No memory is
taken after the constructor.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from harness.device import HOST, Device, aligned
from harness.execution.parameters import Parameters
from harness.execution.shared_buffers import SHARED_KINDS, SharedBuffers
from harness.graph.program import Tensor
from harness.planning.bf16_weights import ARENA, part_of
from harness.planning.layout import BF16_WEIGHTS
from harness.planning.plan import Plan, Step, Version, View
from harness.plugins.dispatch import bind
from harness.plugins.scratch import lending

Bound = Callable[[], None]


class Executor:
    """The buffers and bound calls of a plan.

    parameters: the model's arenas, which several executors may share (training, validation, samples).
    wrappers: plugins of the hook wrap_op.
    shared: memory in which executors that run in turn meet; without it, each has its own.
    """

    def __init__(
        self,
        plan: Plan,
        parameters: Parameters,
        wrappers: tuple[Any, ...] = (),
        shared: SharedBuffers | None = None,
    ) -> None:
        self.plan = plan
        self.parameters = parameters
        self._wrappers = wrappers
        self._shared = shared or SharedBuffers()
        self._devices: dict[str, Device] = {"host": parameters.device}
        self._devices[plan.home] = parameters.device
        self._functions: dict[str, Callable[..., None]] = {}
        self._arenas: dict[str, Any] = {}
        self._persistent: dict[Version, Any] = {}
        self._open_devices()
        if plan.renewals:
            parameters.need_bf16_weights(plan.precision.rounding)
        if plan.backward:
            parameters.need("gradient")
        self._staging = np.empty(plan.staging_bytes, np.uint8)
        for name, nbytes in plan.arena_bytes.items():
            self._arenas[name] = self._shared.arena(name, self._devices[name], nbytes)
        self._forward = [self._bind(step) for step in plan.forward]
        self._backward_first = [self._bind(step) for step in plan.backward]
        self._backward_later = [
            self._bind(step, later=True) for step in plan.backward if not step.first_only
        ]
        self._gather = [self._bind(step) for step in plan.gather]
        self._refresh = [self._bind(step) for step in plan.refresh]
        self._inputs = {name: self._filled(t) for name, t in plan.program.inputs.items()}
        self._seeds = self._filled(plan.seed.version.tensor) if plan.seed else []
        self._results = [
            (self._devices[view.version.device], self._buffer(view)) for view in plan.results
        ]
        self.refresh()

    def _open_devices(self) -> None:
        if self.plan.home != "host":
            self._devices["host"] = HOST
        for step in self.plan.steps:
            if step.choice and step.choice.backend.device not in self._devices:
                backend = step.choice.backend
                self._devices[backend.device] = backend.open_device()

    # -- what a training step is made of -------------------------------------------------------

    def write(self, name: str, array: np.ndarray) -> None:
        """Fill an input, on every device that reads it."""
        for device, buffer in self._inputs[name]:
            device.from_host(buffer, array)

    def seed(self, value: np.ndarray) -> None:
        """Fill the gradient of the loss of each row."""
        for device, buffer in self._seeds:
            device.from_host(buffer, value)

    def forward(self) -> None:
        for call in self._forward:
            call()

    def backward(self, first: bool = True) -> None:
        """Fill the gradients, or from the second micro-batch on (`first=False`) add to them."""
        for call in self._backward_first if first else self._backward_later:
            call()

    def gather(self) -> None:
        """Bring gradients of other devices home; once, before the optimizer."""
        for call in self._gather:
            call()

    def refresh(self) -> None:
        """Renew the bf16 weights, where the masters have changed since, and all copies.

        Once, after the optimizer. A capture of the step holds what the call did as it was captured:
        whether the optimizer leaves the bf16 weights to this call is the same in every step.
        """
        for step, call in zip(self.plan.refresh, self._refresh, strict=True):
            part = part_of(step)
            if part is None or self.parameters.is_stale(part):
                call()
            if part is not None:
                self.parameters.renewed(part)

    def result(self, number: int = 0) -> tuple[Device, Any]:
        """Where a result of the forward lies: its device, and its buffer there."""
        return self._results[number]

    def read(self, result: int = 0, into: np.ndarray | None = None) -> np.ndarray:
        """A result of the forward, as a new NumPy array, or in one of its shape and dtype."""
        device, buffer = self._results[result]
        if into is None:
            view = self.plan.results[result]
            into = np.empty(view.shape, view.version.dtype)
        device.to_host(into, buffer)
        return into

    def first_nonfinite(self) -> str | None:
        """Run forward and backward once more, and name the first call that writes NaN or Inf."""
        calls = zip(
            self.plan.forward + self.plan.backward,
            self._forward + self._backward_first,
            strict=True,
        )
        for step, call in calls:
            call()
            if step.call is None or step.choice is None:
                continue
            for argument, _ in step.call.written:
                view = step.arguments[argument.name]
                array = np.empty(view.shape, view.version.dtype)
                self._devices[view.version.device].to_host(array, self._buffer(view))
                if not np.isfinite(array.astype(np.float32)).all():
                    return f"{step.hook} of {step.choice.backend.name} ({view.version.tensor.name})"
        return None

    # -- binding ------------------------------------------------------------------------------

    def _filled(self, tensor: Tensor) -> list[tuple[Device, Any]]:
        """The buffers that the host fills for an input, one on each device that reads it."""
        return [
            (self._devices[v.device], self._buffer(View(v, tensor.shape)))
            for v in self.plan.input_versions(tensor)
        ]

    def _buffer(self, view: View) -> Any:
        version = view.version
        device = self._devices[version.device]
        if version.kind == "activation":
            memory, offset = self._arenas[version.device], version.block.offset
            return device.view(memory, offset, view.shape, version.dtype)
        if version.kind == ARENA:
            return self.parameters.part(version.tensor.name, version.dtype, view.shape)
        owned = self._owned_by_parameters(version)
        if owned is not None:
            arena, name = owned
            return self.parameters.view(arena, name, view.shape)
        if version.kind in SHARED_KINDS:
            memory = self._shared.lasting(version, device)
            return device.view(memory, 0, view.shape, version.dtype)
        if version not in self._persistent:
            self._persistent[version] = device.empty(aligned(version.nbytes))
            whole = device.view(self._persistent[version], 0, version.tensor.shape, version.dtype)
            device.zero(whole)
        return device.view(self._persistent[version], 0, view.shape, version.dtype)

    def _owned_by_parameters(self, version: Version) -> tuple[str, str] | None:
        """(arena, parameter) of a weight or a gradient at home; None for other copies."""
        if version.device != self.plan.home:
            return None
        if version.kind == "parameter":
            return "parameter" if version.dtype == np.float32 else BF16_WEIGHTS, version.tensor.name
        for name, gradient in self.plan.gradients.items():
            if gradient is version:
                return "gradient", name
        return None

    def _bind(self, step: Step, later: bool = False) -> Bound:
        if step.kind == "copy":
            return self._bind_copy(step)
        if step.kind == "zero":
            (view,) = step.views
            return partial(self._devices[view.version.device].zero, self._buffer(view))
        assert step.choice is not None
        if step.hook not in self._functions:
            self._functions[step.hook] = bind(
                step.choice, self._wrappers, self.plan.precision.of_hook(step.hook)
            )
        backend = step.choice.backend
        arguments = []
        for name, value in step.arguments.items():
            if isinstance(value, View):
                value = backend.adapt(self._buffer(value))
            elif name == "accumulate" and later:
                value = True
            arguments.append(value)
        bound = partial(self._functions[step.hook], *arguments)
        if step.scratch is None:
            return bound
        where = step.scratch
        arena, device = self._arenas[step.device], self._devices[step.device]
        memory = device.view(arena, where.offset, (where.nbytes,), np.uint8)
        return lending(bound, backend, memory)

    def _bind_copy(self, step: Step) -> Bound:
        source, target = step.views
        out, into = self._devices[source.version.device], self._devices[target.version.device]
        # Copies run one after another: all of them pass through the same memory.
        staging = HOST.view(self._staging, 0, source.shape, source.version.dtype)
        source_buffer, target_buffer = self._buffer(source), self._buffer(target)

        def copy() -> None:
            out.to_host(staging, source_buffer)
            into.from_host(target_buffer, staging)

        return copy
