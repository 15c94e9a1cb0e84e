"""LoRA as an adapter: low-rank pairs, trained beside the frozen linear layers of a GPT-2.

    out = x · weightᵀ + bias + (alpha / rank) · x · aᵀ · bᵀ

A target is a linear layer, or the rows of q, k or v in the packed weight of attention. The pair of q in
layer 3 is called `lora_a.q.3` (rank, in) and `lora_b.q.3` (out, rank).
Source: Hu et al. 2021, arXiv:2106.09685; the mathematics of the op in harness/ops/lora.py.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from harness.contract import Shape
from harness.contract.table import nearest
from harness.errors import CheckpointError, ConfigError, NumericsError
from harness.graph.program import Program, Tensor
from harness.models.gpt2 import GPT2, zeros
from harness.models.kinds import kind_shapes


@dataclass(frozen=True)
class Target:
    """What a pair adds to: a kind of linear layer, or one of the thirds of its outputs."""

    kind: str
    third: int | None = None

    def rows(self, model: GPT2) -> tuple[int, int]:
        """The first of its rows in the layer's weight, and how many they are."""
        if self.third is None:
            return 0, kind_shapes(model)[f"{self.kind}w"][0]
        return self.third * model.channels, model.channels


TARGETS = {
    "q": Target("qkv", 0),
    "k": Target("qkv", 1),
    "v": Target("qkv", 2),
    "qkv": Target("qkv"),
    "attproj": Target("attproj"),
    "fc": Target("fc"),
    "fcproj": Target("fcproj"),
}
ALIASES = {
    "query": "q",
    "key": "k",
    "value": "v",
    "o": "attproj",
    "out": "attproj",
    "c_attn": "qkv",  # as peft calls it; its c_proj is two layers
    "c_fc": "fc",
}
SLICES = ("q", "k", "v")
# Beyond these alpha / rank would come near what float32 can hold, and whole numbers no longer be whole.
MIN_ALPHA, MAX_ALPHA = 1e-15, 1e15
ALPHAS = f"{MIN_ALPHA:g} to {MAX_ALPHA:g}, or as much below 0"


@dataclass(frozen=True)
class Lora:
    """The adapter of a run. scale = alpha / rank, so that another rank needs no other learning rate.

    targets: of TARGETS, in any order; they are kept in that of TARGETS.
    """

    rank: int = 4
    alpha: float = 8.0
    targets: tuple[str, ...] = ("q", "v")

    def __post_init__(self) -> None:
        if self.rank < 1:
            raise ConfigError(
                f"adapter.rank={self.rank} must be at least 1",
                slug="adapter-rank",
                do="adapter=none trains the model itself",
            )
        if not is_alpha(self.alpha):
            raise ConfigError(
                f"adapter.alpha={self.alpha} is no number that a pair can be multiplied by",
                slug="adapter-alpha",
                expected=ALPHAS,
                effect="what the adapter computes is multiplied by alpha / rank",
            )
        object.__setattr__(self, "targets", _in_order(self.targets))

    def __str__(self) -> str:
        return f"lora, rank {self.rank}, alpha {self.alpha:g}, targets {', '.join(self.targets)}"

    @property
    def scale(self) -> float:
        return self.alpha / self.rank

    def of_kind(self, kind: str) -> tuple[str, ...]:
        """The targets in a kind of linear layer: qkv, attproj, fc or fcproj."""
        return tuple(name for name in self.targets if TARGETS[name].kind == kind)

    def shapes(self, model: GPT2) -> dict[str, Shape]:
        """Parameter name -> shape, layer by layer."""
        found: dict[str, Shape] = {}
        for layer in range(model.layers):
            for target in self.targets:
                a, b = pair_names(target, layer)
                found[a] = (self.rank, inputs_of(target, model))
                found[b] = (TARGETS[target].rows(model)[1], self.rank)
        return found

    def parameters(self, model: GPT2) -> int:
        """Trained numbers: 147,456 for rank 4 on q and v of GPT-2 124M."""
        return sum(math.prod(shape) for shape in self.shapes(model).values())

    def description(self, model: GPT2) -> str:
        """One line for the start of a run."""
        trained, frozen = self.parameters(model), model.parameters
        share = f"{trained:,} of {frozen:,} parameters are trained ({100 * trained / frozen:.3g} %)"
        return f"{share}: {self}"

    # -- what a program asks of an adapter (harness/models/gpt2.py) ----------------------------

    def adapts(self, kind: str) -> bool:
        return bool(self.of_kind(kind))

    def declare(self, p: Program, model: GPT2) -> None:
        for name, shape in self.shapes(model).items():
            p.parameter(name, shape, small if name.startswith("lora_a") else zeros, decay=False)

    def extend(self, p: Program, kind: str, layer: int, x_NI: Tensor, out_NO: Tensor) -> Tensor:
        for target in self.of_kind(kind):
            a_RI, b_SR = (p.parameters[name] for name in pair_names(target, layer))
            third = TARGETS[target].third
            first = 0 if third is None else third * b_SR.shape[0]
            out_NO = p.call("lora", out_NO, x_NI, a_RI, b_SR, first, self.scale)
        return out_NO


def is_alpha(value: float) -> bool:
    return MIN_ALPHA <= abs(value) <= MAX_ALPHA  # NaN is not


def pair_names(target: str, layer: int) -> tuple[str, str]:
    """The names of a target's two parameters in one layer."""
    return f"lora_a.{target}.{layer}", f"lora_b.{target}.{layer}"


def check_pairs(lora: Lora, model: GPT2, read: Callable[[str], np.ndarray]) -> None:
    """Hold an adapter's arrays, by their parameters' names, against a model: shapes, and finite.

    Raises CheckpointError or NumericsError.
    """
    for name, shape in lora.shapes(model).items():
        values = read(name)
        if values.shape != shape:
            raise CheckpointError(
                f"the adapter does not fit the model: {name}",
                slug="adapter-misfit",
                expected=f"shape {shape}",
                found=f"shape {values.shape}",
                do="the model that it was trained beside",
            )
        if not np.isfinite(values).all():
            raise NumericsError(
                f"the adapter holds NaN or Inf: {name}",
                slug="adapter-not-finite",
            )


def inputs_of(target: str, model: GPT2) -> int:
    return kind_shapes(model)[f"{TARGETS[target].kind}w"][1]


def small(rng: np.random.Generator, shape: Shape) -> np.ndarray:
    """Normal of variance 2 / in. The other half of a pair begins at zero: nothing is added at first."""
    return rng.standard_normal(shape, np.float32) * np.float32(math.sqrt(2 / shape[1]))


def _in_order(given: tuple[str, ...] | list[str]) -> tuple[str, ...]:
    """The targets by their own names, in the order of TARGETS, each of them once."""
    named: dict[str, str] = {}
    for word in given:
        target = ALIASES.get(word, word)
        if target not in TARGETS:
            raise ConfigError(
                f"adapter.targets names '{word}', and no such part of the model can be adapted",
                slug="unknown-target",
                nearest=nearest(word, (*TARGETS, *ALIASES)),
                there_are=", ".join(TARGETS),
            )
        if target in named:
            raise ConfigError(
                f"adapter.targets names {target} twice",
                slug="target-twice",
                found=", ".join(dict.fromkeys((named[target], word))),
            )
        named[target] = word
    if not named:
        raise ConfigError(
            "adapter.targets is empty",
            slug="target-missing",
            there_are=", ".join(TARGETS),
            do="adapter.targets=[q,v]",
        )
    slices = [name for name in SLICES if name in named]
    if "qkv" in named and slices:
        raise ConfigError(
            f"adapter.targets names qkv and {', '.join(slices)}, which are slices of it",
            slug="targets-overlap",
            do="qkv alone, or some of q, k and v",
        )
    return tuple(name for name in TARGETS if name in named)
