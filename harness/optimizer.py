"""Update all parameters: one call of the optimizer's op per group, over the flat arena.

What changes from step to step (learning rate, bias corrections, clip scale) stands in small buffers
on the parameters' device; the corrections are formed in double on the host.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from harness.contract.table import nearest
from harness.dispatch import Choice, Dispatch, bind
from harness.errors import ConfigError
from harness.parameters import Parameters

OPTIMIZERS = {"adamw": "adamw", "adam": "adamw", "sgd": "sgd"}
"""Optimizer name -> the op that computes it."""


@dataclass(frozen=True)
class OptimizerSettings:
    """name: `adamw`, `adam` (no weight decay) or `sgd`. momentum: of sgd only.

    decay: which parameters weight_decay applies to: `matrices`, `all` or `none`. llm.c's CUDA and
    Python trainers decay matrices, its CPU trainer all.
    """

    name: str = "adamw"
    beta1: float = 0.9
    beta2: float = 0.95
    eps: float = 1e-8
    weight_decay: float = 0.1
    momentum: float = 0.0
    decay: str = "matrices"

    def __post_init__(self) -> None:
        if self.name not in OPTIMIZERS:
            raise ConfigError(
                f"optimizer.name={self.name} is unknown",
                slug="unknown-optimizer",
                nearest=nearest(self.name, OPTIMIZERS),
                there_are=", ".join(OPTIMIZERS),
            )
        if self.decay not in ("matrices", "all", "none"):
            raise ConfigError(
                f"optimizer.decay={self.decay} is unknown",
                slug="unknown-decay-rule",
                there_are="matrices, all, none",
            )
        if self.name == "adam" and self.weight_decay:
            raise ConfigError(
                f"optimizer=adam with optimizer.weight_decay={self.weight_decay}",
                slug="adam-has-no-decay",
                effect="decay that does not pass through the moments makes it AdamW",
                do="optimizer=adamw, or optimizer.weight_decay=0",
            )

    @property
    def op(self) -> str:
        return OPTIMIZERS[self.name]

    @property
    def moments(self) -> tuple[str, ...]:
        """The arenas that this optimizer keeps."""
        if self.op == "adamw":
            return ("m", "v")
        return ("velocity",) if self.momentum else ()


class Optimizer:
    """The bound calls of one optimizer over one set of parameters. `t` counts the updates made."""

    def __init__(
        self,
        settings: OptimizerSettings,
        parameters: Parameters,
        dispatch: Dispatch,
        wrappers: tuple[Any, ...] = (),
    ) -> None:
        self.settings = settings
        self.t = 0
        self._parameters = parameters
        self._device = parameters.device
        self._choice = dispatch.choose(settings.op)
        self._norm_choice = dispatch.choose("squared_norm")
        for name in ("gradient", *settings.moments):
            parameters.need(name)
        # Views of device memory, and the host arrays that they are filled from.
        self._lr, self._lr_host = self._small(1)
        self._correction, self._correction_host = self._small(2)
        self._clip, self._clip_host = self._small(1)
        self._sum, self._sum_host = self._small(1)
        self._wrappers = wrappers
        self._updates = self._bind_updates()
        self._norm = self._bind_norm()

    def _small(self, count: int) -> tuple[Any, np.ndarray]:
        memory = self._device.empty(4 * count)
        return self._device.view(memory, 0, (count,), np.float32), np.zeros(count, np.float32)

    def _bind_updates(self) -> list[Callable[[], None]]:
        layout = self._parameters.layout
        settings = self.settings
        decayed = {"matrices": layout.decayed, "all": layout.trained, "none": 0}[settings.decay]
        groups = [(0, decayed, settings.weight_decay), (decayed, layout.trained, 0.0)]
        function = bind(self._choice, self._wrappers)
        return [
            partial(function, *self._arguments(start, stop, decay))
            for start, stop, decay in groups
            if start < stop
        ]

    def _arguments(self, start: int, stop: int, weight_decay: float) -> list[Any]:
        adapt = self._choice.backend.adapt
        settings = self.settings

        def part(arena: str) -> Any:
            return adapt(self._parameters.flat(arena, start, stop))

        lr, clip, correction = adapt(self._lr), adapt(self._clip), adapt(self._correction)
        if settings.op == "sgd":
            velocity = part("velocity") if settings.momentum else None
            scalars = [settings.momentum, weight_decay]
            return [part("parameter"), velocity, part("gradient"), lr, clip, *scalars]
        scalars = [settings.beta1, settings.beta2, settings.eps, weight_decay]
        moments = [part("m"), part("v")]
        return [part("parameter"), *moments, part("gradient"), lr, correction, clip, *scalars]

    def _bind_norm(self) -> Callable[[], None]:
        adapt = self._norm_choice.backend.adapt
        whole = self._parameters.flat("gradient", 0, self._parameters.layout.trained)
        return partial(bind(self._norm_choice, self._wrappers), adapt(self._sum), adapt(whole))

    @property
    def choices(self) -> tuple[Choice, ...]:
        return (self._choice, self._norm_choice)

    def gradient_norm(self) -> float:
        """The L2 norm of all gradients together."""
        self._norm()
        self._device.to_host(self._sum_host, self._sum)
        # A sum of squares of float32 gradients may itself be NaN or inf: the caller decides.
        value = float(self._sum_host[0])
        return math.sqrt(value) if value >= 0 else math.nan

    def step(self, learning_rate: float, clip_scale: float = 1.0) -> None:
        """One update. clip_scale: what every gradient is multiplied by."""
        self.t += 1
        self._lr_host[0] = learning_rate
        self._clip_host[0] = clip_scale
        beta1, beta2 = self.settings.beta1, self.settings.beta2
        self._correction_host[:] = 1 - beta1**self.t, 1 - beta2**self.t
        self._device.from_host(self._lr, self._lr_host)
        self._device.from_host(self._clip, self._clip_host)
        self._device.from_host(self._correction, self._correction_host)
        for update in self._updates:
            update()
