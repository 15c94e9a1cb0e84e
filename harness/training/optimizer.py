"""Update all parameters: one call of the optimizer's op per group, over the flat arena.

What changes from step to step (learning rate, bias corrections, clip scale) is in small buffers on the
parameters' device. The corrections are computed in double on the host. The clip scale is computed on the
device from the gradient's norm, and is NaN in a step that must change nothing.

Where ops read the weights in bfloat16, `adamw_master` updates the float32 masters and writes the bf16
weights in the same pass, if the backend of adamw has it; after any other update the executor casts them.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from harness.contract.table import nearest
from harness.device import reading
from harness.errors import ConfigError, OpNotImplemented
from harness.execution.parameters import Parameters
from harness.planning.layout import BF16_WEIGHTS
from harness.plugins.dispatch import EVERY_OP, Choice, Dispatch, bind
from harness.plugins.scratch import MAX_BYTES, lending, needed
from harness.training.shards import Span, groups

OPTIMIZERS = {"adamw": "adamw", "adam": "adamw", "sgd": "sgd"}
"""Optimizer name -> the op that computes it."""

MASTER = "adamw_master"
"""The op that computes AdamW and writes the low-precision weights as well."""


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


def update_choice(settings: OptimizerSettings, dispatch: Dispatch, low: bool) -> Choice:
    """The op that makes the update, and its backend. low: whether there are weights in bfloat16.

    adamw_master is used where it is named, or where one backend is chosen for it and for adamw, and
    has both. Raises ConfigError where it and adamw are named, and differ.
    """
    plain = dispatch.choose(settings.op)
    if settings.op != "adamw" or not low:
        return plain
    named = [key for key in (MASTER, "adamw") if dispatch.key_for(key) != EVERY_OP]
    try:
        fused = dispatch.choose(MASTER)
    except OpNotImplemented:
        if MASTER in named:
            raise
        return plain
    if fused.backend is plain.backend:
        return fused if fused.backend.computes_in(MASTER, "bf16") is not None else plain
    if MASTER not in named:
        return plain
    if "adamw" in named or fused.backend.device != plain.backend.device:
        raise ConfigError(
            f"{fused.chosen_by}={fused.backend.name} and {plain.chosen_by}={plain.backend.name} "
            f"disagree: {MASTER} replaces adamw",
            slug="fusion-conflict",
            do="the same backend for both, or name one of them",
        )
    return fused


class Optimizer:
    """The bound calls of one optimizer over one set of parameters. `t` counts the updates made.

    clip_norm: the largest norm of the gradient; None computes none.
    """

    def __init__(
        self,
        settings: OptimizerSettings,
        parameters: Parameters,
        dispatch: Dispatch,
        wrappers: tuple[Any, ...] = (),
        clip_norm: float | None = None,
    ) -> None:
        self.settings = settings
        self._parameters = parameters
        self._device = parameters.device
        self._t = 0
        self._choice = update_choice(settings, dispatch, parameters.has_bf16_weights)
        self._norm_choice = dispatch.choose("squared_norm")
        self._guard_choice = dispatch.choose("guard")
        self._clip_choice = dispatch.choose("clip_scale")
        for name in ("gradient", *settings.moments):
            parameters.need(name)
        # Views of device memory, and the host arrays that they are filled from.
        self._lr, self._lr_host = self._small(1)
        self._correction, self._correction_host = self._small(2)
        self._clip, self._one = self._small(1)
        self._one.fill(1)
        self._sum, self._sum_host = self._small(1)
        self._wrappers = wrappers
        self._updates = self._bind_updates()
        self._norm = [] if clip_norm is None else self._bind_norm(clip_norm)
        self.reset()

    @property
    def t(self) -> int:
        return self._t

    @t.setter
    def t(self, updates: int) -> None:
        if updates != self._t + 1:
            # Not the next update but a state that was restored: its weights were rounded with its key.
            self._parameters.updated()
        self._t = updates
        self._parameters.use_key_of(updates)

    def _small(self, count: int) -> tuple[Any, np.ndarray]:
        memory = self._device.empty(4 * count)
        return self._device.view(memory, 0, (count,), np.float32), np.zeros(count, np.float32)

    def _bind_updates(self) -> list[Callable[[], None]]:
        settings = self.settings
        spans = groups(self._parameters.layout, settings.decay, settings.weight_decay)
        fused = self._choice.hook == MASTER
        function = bind(self._choice, self._wrappers, "bf16" if fused else "fp32")
        updates: list[Callable[[], None]] = [
            self._ready(self._choice, partial(function, *self._arguments(span)), len(span))
            for span in spans
        ]
        if self._parameters.has_bf16_weights and not fused:
            updates.append(self._parameters.updated)
        return updates

    def _arguments(self, span: Span) -> list[Any]:
        adapt = self._choice.backend.adapt
        settings, weight_decay = self.settings, span.weight_decay

        def part(arena: str) -> Any:
            return adapt(self._parameters.flat(arena, span.start, span.stop))

        lr, clip, correction = adapt(self._lr), adapt(self._clip), adapt(self._correction)
        if settings.op == "sgd":
            velocity = part("velocity") if settings.momentum else None
            scalars = [settings.momentum, weight_decay]
            return [part("parameter"), velocity, part("gradient"), lr, clip, *scalars]
        scalars = [settings.beta1, settings.beta2, settings.eps, weight_decay]
        moments = [part("m"), part("v")]
        if self._choice.hook == MASTER:
            at_random = self._parameters.rounding == "stochastic"
            key = adapt(self._parameters.key) if at_random else None
            weights = [part("parameter"), part(BF16_WEIGHTS)]
            scales = [lr, correction, clip, key]
            return [*weights, *moments, part("gradient"), *scales, *scalars, span.start]
        return [part("parameter"), *moments, part("gradient"), lr, correction, clip, *scalars]

    def _bind_norm(self, clip_norm: float) -> list[Callable[[], None]]:
        size = self._parameters.layout.trained
        adapt = self._norm_choice.backend.adapt
        whole = self._parameters.flat("gradient", 0, size)
        norm = partial(bind(self._norm_choice, self._wrappers), adapt(self._sum), adapt(whole))
        adapt = self._clip_choice.backend.adapt
        scale, total = adapt(self._clip), adapt(self._sum)
        clip = partial(bind(self._clip_choice, self._wrappers), scale, total, clip_norm)
        return [self._ready(self._norm_choice, norm, size), clip]

    def bind_guard(self, loss_N: Any, count: int) -> Callable[[], None]:
        """A call after which the next update changes nothing, if one of so many losses is not finite.

        loss_N: a buffer on the parameters' device.
        """
        adapt = self._guard_choice.backend.adapt
        call = partial(bind(self._guard_choice, self._wrappers), adapt(self._clip), adapt(loss_N))
        return self._ready(self._guard_choice, call, count)

    def _ready(self, choice: Choice, call: Callable[[], None], size: int) -> Callable[[], None]:
        """A call of an op of P = size, with workspace of its own."""
        nbytes = needed(choice, {"P": size}, "fp32", MAX_BYTES)
        if not nbytes:
            return call
        memory = self._device.view(self._device.empty(nbytes), 0, (nbytes,), np.uint8)
        return lending(call, choice.backend, memory)

    @property
    def choices(self) -> tuple[Choice, ...]:
        return (self._choice, self._norm_choice, self._guard_choice, self._clip_choice)

    def calls(self, loss_N: Any) -> list[tuple[Choice, list[Any]]]:
        """Every op of an update, with its arguments. loss_N: what the guard looks at."""
        spans = groups(self._parameters.layout, self.settings.decay, self.settings.weight_decay)
        calls = [(self._choice, self._arguments(span)) for span in spans]
        if self._norm:
            whole = self._parameters.flat("gradient", 0, self._parameters.layout.trained)
            calls.append((self._norm_choice, [self._sum, whole]))
        calls.append((self._guard_choice, [self._clip, loss_N]))
        return calls

    def reset(self) -> None:
        """Make updates possible again after a step that was not finite."""
        self._device.from_host(self._clip, self._one)

    def begin(self, learning_rate: float) -> None:
        """Count an update, and write what it reads: learning rate, corrections. Once before each."""
        self.t += 1
        self._lr_host[0] = learning_rate
        beta1, beta2 = self.settings.beta1, self.settings.beta2
        self._correction_host[:] = 1 - beta1**self.t, 1 - beta2**self.t
        self._device.from_host(self._lr, self._lr_host)
        self._device.from_host(self._correction, self._correction_host)

    def update(self) -> None:
        """Clip the gradient and make one update; none where the clip scale is NaN."""
        for call in (*self._norm, *self._updates):
            call()

    def norm(self) -> Callable[[], float] | None:
        """A call that gives the L2 norm of all gradients of this update, before clipping."""
        if not self._norm:
            return None
        return reading(self._device, self._sum, self._sum_host, _root)


def _root(sum_1: np.ndarray) -> float:
    # A sum of squares of float32 gradients may itself be NaN or inf: the caller decides.
    value = float(sum_1[0])
    return math.sqrt(value) if value >= 0 else math.nan
