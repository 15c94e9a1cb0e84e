"""Check what the types of a configuration do not say: bounds of numbers, words, contradictions."""

import math
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, is_dataclass
from operator import attrgetter
from typing import Any

from harness.config.config import RunConfig, adapter_of
from harness.contract.table import nearest
from harness.errors import ConfigError
from harness.machine.threads import MAX_THREADS
from harness.models.gpt2 import SIZES


@dataclass(frozen=True)
class Bounds:
    """What the numbers and words of a configuration may be, by their keys with dots."""

    at_least: Mapping[str, float]
    more_than_0: tuple[str, ...] = ()
    below: Mapping[str, float] = field(default_factory=dict)
    at_most: Mapping[str, float] = field(default_factory=dict)
    words: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


MINIMA = {
    **dict.fromkeys(("steps", "batch_size", "gradient_accumulation", "sequence_length"), 1),
    **dict.fromkeys(("log_every", "keep_checkpoints", "validation_batches"), 1),
    "final_validation_batches": 1,
    "threads": 1,
    "scratch_mib": 1,
    **dict.fromkeys(("seed", "validate_every", "checkpoint_every"), 0),
    **dict.fromkeys(("model.vocab_size", "sample.top_k"), 1),
    **dict.fromkeys(("sample.every", "sample.length", "sample.temperature"), 0),
    **dict.fromkeys(("optimizer.lr", "optimizer.beta1", "optimizer.beta2"), 0),
    **dict.fromkeys(("optimizer.weight_decay", "optimizer.momentum"), 0),
    **dict.fromkeys(("schedule.warmup_steps", "schedule.final_fraction"), 0),
}
MORE_THAN_0 = ("clip_norm", "optimizer.eps")
BELOW = {
    "seed": 2**63,  # what JSON and YAML readers take
    "optimizer.beta1": 1,
    "optimizer.beta2": 1,
    "optimizer.momentum": 1,
}
MAXIMA = {"threads": MAX_THREADS}
WORDS = {
    "loss_gradient": ("mean", "sum"),
    "on_nonfinite": ("stop", "skip"),
    "capture": ("auto", "off"),
    "transfer": ("refuse", "allow"),
    "recompute": ("none", "gelu", "block"),
    "blas_kernel": ("environment", "library"),
    "adapter.name": ("none", "lora"),
}
OF_A_RUN = Bounds(MINIMA, MORE_THAN_0, BELOW, MAXIMA, WORDS)
SHAPE_OF_THE_MODEL = ("model", *(f"model.{key}" for key in (*SIZES, "init")))


def check_run(run: RunConfig, overrides: list[str]) -> None:
    """The bounds of a training run. Raises ConfigError."""
    check(run, OF_A_RUN)
    if run.on_nonfinite == "skip" and run.clip_norm is None:
        raise ConfigError(
            "on_nonfinite=skip needs a clip_norm",
            slug="skip-without-norm",
            effect="without the gradient's norm, NaN in a gradient would reach the weights",
            do="clip_norm=1, or 1e30, which never clips",
        )
    keys = [t.partition("=")[0] for t in overrides]
    about_it = [k for k in keys if k.startswith("adapter.") and k != "adapter.name"]
    if run.adapter.name == "none" and about_it:
        raise ConfigError(
            f"{about_it[0]} is set, and this run has no adapter",
            slug="no-adapter",
            do="adapter=lora, or leave it out",
        )
    adapter_of(run)  # raises what is wrong with it
    if run.optimizer_from is not None and run.model_from is None:
        raise ConfigError(
            f"optimizer_from={run.optimizer_from} without model_from",
            slug="moments-without-model",
            effect="moments belong to the weights that they were made with",
            do=f"model_from={run.optimizer_from}",
        )
    shaping = [t for t in overrides if t.partition("=")[0] in SHAPE_OF_THE_MODEL]
    if run.model_from is not None and shaping:
        raise ConfigError(
            f"model_from={run.model_from} and {shaping[0]}: the stored model has a shape of its own",
            slug="model-has-a-shape",
            do=f"leave {shaping[0].partition('=')[0]} out",
        )


def check(config: Any, bounds: Bounds) -> None:
    """Check the numbers, the words and the folder of runs of a configuration. Raises ConfigError."""
    numbers = dict(_numbers(config))
    for name, value in numbers.items():
        if not math.isfinite(value):
            raise ConfigError(f"{name}={value} is not a finite number", slug="value-not-finite")
    for name, least in bounds.at_least.items():
        if name in numbers and numbers[name] < least:
            text = f"{name}={numbers[name]} must be at least {least}"
            raise ConfigError(text, slug="value-too-small")
    for name in bounds.more_than_0:
        if name in numbers and numbers[name] <= 0:
            text = f"{name}={numbers[name]} must be more than 0"
            raise ConfigError(text, slug="value-too-small")
    for name, above in bounds.below.items():
        if name in numbers and numbers[name] >= above:
            text = f"{name}={numbers[name]} must be below {above}"
            raise ConfigError(text, slug="value-too-large")
    for name, most in bounds.at_most.items():
        if name in numbers and numbers[name] > most:
            text = f"{name}={numbers[name]} must be at most {most}"
            raise ConfigError(text, slug="value-too-large")
    if not config.runs_dir or config.runs_dir.startswith("~"):
        raise ConfigError(
            f"runs_dir={config.runs_dir} is no folder",
            slug="runs-dir-invalid",
            do=f"runs_dir={os.path.expanduser(config.runs_dir) or 'runs'}",
        )
    for name, options in bounds.words.items():
        value = attrgetter(name)(config)
        if value not in options:
            raise ConfigError(
                f"{name}={value} is unknown",
                slug="unknown-value",
                nearest=nearest(value, options),
                there_are=", ".join(options),
            )


def check_backend(config: Any, overrides: list[str], backend: str) -> None:
    """Refuse `backend=numba ops=fast_mix`: an ops file that does not follow `backend` contradicts it."""
    explicit = any(text.startswith("backend=") for text in overrides)
    every_op = config.ops["every_op"] if isinstance(config.ops, dict) else config.ops.every_op
    if explicit and every_op != backend:
        raise ConfigError(
            f"backend={backend} and the chosen ops disagree: ops.every_op={every_op}",
            slug="backend-and-ops-disagree",
            do=f"leave backend out, or add ops.every_op={backend}",
        )


def _numbers(section: Any, prefix: str = "") -> Iterator[tuple[str, int | float]]:
    """Every number of a configuration, by its key with dots; those that are null are left out."""
    for name, value in vars(section).items():
        if is_dataclass(value):
            yield from _numbers(value, f"{prefix}{name}.")
        elif isinstance(value, int | float):
            yield f"{prefix}{name}", value
