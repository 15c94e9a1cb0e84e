"""Plan a step of training before any memory is taken: its settings, its calls, what it will hold."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from harness.contract import OpTable
from harness.contract.precision import Precision
from harness.errors import ConfigError
from harness.models.gpt2 import GPT2, Adapter, build
from harness.planning.arena import ArenaUse
from harness.planning.layout import BF16_WEIGHTS, arena_bytes, make_layout
from harness.planning.memory_budget import lasting_bytes
from harness.planning.plan import Plan
from harness.planning.planner import make_plan
from harness.plugins.dispatch import Choice, Dispatch
from harness.plugins.loading import load_wrapper
from harness.plugins.scratch import MAX_BYTES
from harness.training.optimizer import OptimizerSettings, update_choice


@dataclass(frozen=True)
class TrainerSettings:
    """What a step of training is.

    batch_size: sequences per micro-batch; gradient_accumulation: micro-batches per step.
    loss_gradient: `mean` over the step's targets, or `sum`.
    clip_norm: the largest global norm of the gradient; None computes no norm at all, and a
        non-finite gradient is then only seen in the next loss.
    on_nonfinite: `stop` before the update, or `skip` it, which waits for the result of each step.
    capture: `auto` records a step where the device can and replays it; `off` makes each call by itself.
    recompute: which activations the backward computes again: `none`, `gelu` or `block`.
    scratch_bytes: the most workspace that an op takes, where it can work in pieces.
    options: backend -> settings of its own (`cupy.attention=flash`).
    adapter: what is trained in place of the model's own weights, which are then frozen.
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
    scratch_bytes: int = MAX_BYTES
    on_nonfinite: str = "stop"
    capture: str = "auto"
    wrappers: tuple[str, ...] = ()
    seed: int = 0
    adapter: Adapter | None = None
    options: Mapping[str, Mapping[str, str]] = field(default_factory=dict)


class TrainingPlan:
    """What a step of training will be, before any memory is taken: `harness plan` prints it.

    calls: the plan of a micro-batch, forward and backward. optimizer_choices: the ops of the update,
    the update itself first, each with its backend. home: the backend where the parameters are.
    Raises the errors of plan and plugins.
    """

    def __init__(self, settings: TrainerSettings, ops: OpTable) -> None:
        self.settings = settings
        self.ops = ops
        self.dispatch = Dispatch(ops, settings.ops, settings.options)
        self.wrappers: tuple[Any, ...] = tuple(load_wrapper(n, ops) for n in settings.wrappers)
        self.optimizer_choices: tuple[Choice, ...] = tuple(
            self.dispatch.choose(hook)
            for hook in (settings.optimizer.op, "squared_norm", "guard", "clip_scale")
        )
        self.home = self.optimizer_choices[0].backend
        _check_one_device(self.optimizer_choices)
        self.calls = self.calls_for(settings.batch_size, settings.sequence_length)
        self.layout = make_layout(self.calls.program)
        update = update_choice(settings.optimizer, self.dispatch, bool(self.calls.renewals))
        self.optimizer_choices = (update, *self.optimizer_choices[1:])

    @property
    def tokens_per_step(self) -> int:
        settings = self.settings
        return settings.batch_size * settings.sequence_length * settings.gradient_accumulation

    @property
    def arena_bytes(self) -> dict[str, int]:
        """The flat arenas at home: parameters (in bfloat16 too, where ops read these), gradients,
        moments.
        """
        low = [BF16_WEIGHTS] if self.calls.renewals else []
        names = ["parameter", *low, "gradient", *self.settings.optimizer.moments]
        return {name: arena_bytes(self.layout, name) for name in names}

    @property
    def peak_bytes(self) -> dict[str, int]:
        """What a step holds at home, by what it is for."""
        home, arenas = self.calls.home, self.arena_bytes
        use = self.calls.arenas.get(home, ArenaUse(0, 0, 0))
        moments = sum(arenas[name] for name in self.settings.optimizer.moments)
        low = {"weights in bfloat16": arenas[BF16_WEIGHTS]} if BF16_WEIGHTS in arenas else {}
        return {
            "parameters": arenas["parameter"],
            **low,
            "gradients": arenas["gradient"],
            "moments": moments,
            "activations": use.nbytes - use.scratch,
            "scratch": use.scratch,
            "inputs and copies": lasting_bytes(self.calls, home),
        }

    @property
    def hooks(self) -> tuple[str, ...]:
        """Every half-op that a step runs."""
        chosen = (choice.hook for choice in self.optimizer_choices)
        return tuple(dict.fromkeys((*self.calls.hooks, *chosen)))

    def calls_for(
        self,
        B: int,
        T: int,
        head: str = "loss",
        train: bool = True,
        recompute: str | None = None,
    ) -> Plan:
        """The calls of the same model at another batch or length, or without a backward."""
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


def _check_one_device(choices: tuple[Choice, ...]) -> None:
    """The ops that decide on an update must be on its device: nothing is copied for them."""
    update, *others = choices
    elsewhere = [choice for choice in others if choice.backend.device != update.backend.device]
    if elsewhere:
        first = elsewhere[0]
        raise ConfigError(
            f"{first.hook} of {first.backend.name} is on {first.backend.device}, and "
            f"{update.hook} of {update.backend.name} on {update.backend.device}",
            slug="update-on-two-devices",
            effect="whether an update is made is decided where the gradients are",
            do=" ".join(f"ops.{choice.hook}={update.backend.name}" for choice in elsewhere),
        )
