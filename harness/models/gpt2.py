"""GPT-2, forwards; the backward is derived.

    x = wte[tokens] + wpe
    for each layer:   x = x + attention(layernorm(x))        x = x + feed_forward(layernorm(x))
    loss = cross_entropy(layernorm(x) · wteᵀ, targets)

Parameters have llm.c's names, one tensor per layer: `qkvw.3`. The head is tied to the token embedding.
Source: Radford et al. 2019; openai/gpt-2, src/model.py; llm.c, train_gpt2.py.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from harness.contract import Ids, OpTable, Shape
from harness.errors import ConfigError
from harness.graph.program import Init, Parameter, Program, Tensor

VOCABULARY_MULTIPLE = 128
LAYERNORM_EPS = 1e-5
SIZES = ("layers", "heads", "channels", "positions", "vocab_size")
MAX_SIZE = 2**31 - 1  # sizes and token ids are int32, here and in llm.c's files
MAX_LAYERS = 10_000  # the deepest Transformer had 1,000 (DeepNet, Wang et al. 2022)
STANDARD_OPS = {"attention": "attention", "activation": "gelu"}
"""The ops of the published GPT-2 in the places where a plugin's may stand."""


@dataclass(frozen=True)
class GPT2:
    """The shape of a model.

    positions: the longest sequence, T at most. vocab_size: tokens, without padding.
    init: `normal` (GPT-2's: 0.02, residual projections scaled by 1/sqrt(2 layers)) or `uniform`
        (all weights within +-0.01, the micro model's).
    attention, activation: the ops that stand in these places, so that a plugin's can.
    """

    layers: int
    heads: int
    channels: int
    positions: int
    vocab_size: int
    init: str = "normal"
    attention: str = "attention"
    activation: str = "gelu"

    def __post_init__(self) -> None:
        for name in SIZES:
            if getattr(self, name) < 1:
                raise ConfigError(
                    f"model.{name}={getattr(self, name)} must be at least 1", slug="model-shape"
                )
            if getattr(self, name) > MAX_SIZE:
                raise ConfigError(
                    f"model.{name}={getattr(self, name)} must be at most {MAX_SIZE}",
                    slug="model-shape",
                )
        if self.channels % self.heads:
            raise ConfigError(
                f"model.heads={self.heads} does not divide model.channels={self.channels}",
                slug="heads-do-not-divide",
                effect="each head takes channels / heads columns of q, k and v",
                do=f"model.heads={math.gcd(self.heads, self.channels)}, or channels of a multiple",
            )
        if self.init not in INITS:
            raise ConfigError(
                f"model.init={self.init} is unknown",
                slug="unknown-init",
                there_are=", ".join(INITS),
            )

    @property
    def padded_vocab(self) -> int:
        """The vocabulary, rounded up to a multiple of 128; the padding rows are zero."""
        return -(-self.vocab_size // VOCABULARY_MULTIPLE) * VOCABULARY_MULTIPLE

    @property
    def parameters(self) -> int:
        """Trained numbers, vocabulary padding not counted: 124,439,808 for GPT-2 124M."""
        C = self.channels
        layer = 12 * C * C + 13 * C
        return (self.vocab_size + self.positions) * C + self.layers * layer + 2 * C

    def flops_per_token(self, T: int) -> int:
        """Forward and backward, as llm.c counts them: 6 N + 6 L C T."""
        return 6 * self.parameters + 6 * self.layers * self.channels * T


class Adapter(Protocol):
    """What is added to the linear layers of a model whose own weights are frozen; see lora.py."""

    def adapts(self, kind: str) -> bool:
        """Whether it adds to the outputs of a kind of linear layer: qkv, attproj, fc or fcproj."""

    def parameters(self, model: GPT2) -> int:
        """How many numbers it trains."""

    def declare(self, p: Program, model: GPT2) -> None:
        """Add its parameters to the program."""

    def extend(self, p: Program, kind: str, layer: int, x_NI: Tensor, out_NO: Tensor) -> Tensor:
        """The linear layer's outputs with the adapter's share."""


def build(
    ops: OpTable,
    model: GPT2,
    B: int,
    T: int,
    *,
    head: str = "loss",
    adapter: Adapter | None = None,
) -> tuple[Program, Tensor]:
    """The program of B sequences of T tokens, and its result.

    head: `loss` gives loss_N of each token, with the input `targets`; `logits` gives logits_NV, and
        `hidden` what the head would be given, hidden_NC.
    adapter: freezes every weight of the model, and trains its own.
    Inputs: tokens (B, T), position (B,), and targets (B, T), int32.
    """
    if model.positions < T:
        raise ConfigError(
            f"sequences of {T} tokens do not fit a model of {model.positions} positions",
            slug="too-long-for-model",
            do=f"sequence_length={model.positions}, or a model of more positions",
        )
    if model.layers > MAX_LAYERS:
        raise ConfigError(
            f"model.layers={model.layers}: a program has at most {MAX_LAYERS} layers",
            slug="model-shape",
        )
    C, H, V = model.channels, model.heads, model.padded_vocab
    p = Program(ops)
    w = Weights(p, model, adapter)
    tokens_BT = p.input("tokens", (B, T))
    position_B = p.input("position", (B,))

    x = p.embedding(tokens_BT, position_B, w.wte, w.wpe)
    with p.block(0):
        h = p.layernorm(x, *w("ln1", 0), LAYERNORM_EPS)
    for layer in range(model.layers):
        with p.block(layer):
            qkv = w.linear("qkv", layer, h).reshape(B, T, 3, H, C // H)
            mixed = _attention(p, model.attention, qkv, tokens_BT).reshape(B * T, C)
            x, h = p.residual_layernorm(
                x, w.linear("attproj", layer, mixed), *w("ln2", layer), LAYERNORM_EPS
            )
            out = w.linear("fcproj", layer, w.feed_forward(layer, h))
        # The next block begins with its layernorm, and so with the sum that goes into it.
        with p.block(layer + 1):
            following = w("ln1", layer + 1) if layer + 1 < model.layers else w("lnf")
            x, h = p.residual_layernorm(x, out, *following, LAYERNORM_EPS)
    if head == "hidden":
        return p, h.reshape(B, T, C)
    if head == "logits":
        return p, p.matmul(h, w.wte, None).reshape(B, T, V)
    targets_BT = p.input("targets", (B, T))
    return p, p.matmul_cross_entropy(h, w.wte, targets_BT, model.vocab_size)


def _attention(p: Program, op: str, qkv: Tensor, tokens_BT: Tensor) -> Tensor:
    """The attention op that the configuration names; one that wants the token ids is given them."""
    forward = p.ops[op].forward.signature
    wanted = [a for a in forward.inputs if a.role is Ids]
    result = p.call(op, qkv, *(tokens_BT for _ in wanted))
    assert isinstance(result, Tensor)
    return result


class Weights:
    """The sixteen kinds of parameters: `w("qkv", layer)` is a weight and its bias.

    With an adapter they are frozen, and `linear` gives the adapter's share as well.
    """

    def __init__(self, p: Program, model: GPT2, adapter: Adapter | None = None) -> None:
        C, L, V = model.channels, model.layers, model.padded_vocab
        # Two residual branches a layer add up: scaled, the stream's variance stays that of one.
        branch = 1 / math.sqrt(2 * L)
        random = INITS[model.init]
        self._p, self._activation, self._adapter = p, model.activation, adapter
        self.wte = self._matrix("wte", (V, C), _padded(random(1.0), model.vocab_size))
        self.wpe = self._matrix("wpe", (model.positions, C), random(1.0))
        for layer in range(L):
            self._norm(f"ln1w.{layer}", f"ln1b.{layer}", C)
            self._linear(f"qkvw.{layer}", f"qkvb.{layer}", (3 * C, C), random(1.0))
            self._linear(f"attprojw.{layer}", f"attprojb.{layer}", (C, C), random(branch))
            self._norm(f"ln2w.{layer}", f"ln2b.{layer}", C)
            self._linear(f"fcw.{layer}", f"fcb.{layer}", (4 * C, C), random(1.0))
            self._linear(f"fcprojw.{layer}", f"fcprojb.{layer}", (C, 4 * C), random(branch))
        self._norm("lnfw", "lnfb", C)
        if adapter is not None:
            adapter.declare(p, model)

    def _norm(self, weight: str, bias: str, C: int) -> None:
        self._vector(weight, C, lambda rng, shape: np.ones(shape, np.float32))
        self._vector(bias, C, zeros)

    def _linear(self, weight: str, bias: str, shape: Shape, init: Init) -> None:
        self._matrix(weight, shape, init)
        self._vector(bias, shape[0], zeros)

    def _matrix(self, name: str, shape: Shape, init: Init) -> Parameter:
        return self._p.parameter(name, shape, init, decay=True, trained=self._adapter is None)

    def _vector(self, name: str, size: int, init: Init) -> Parameter:
        return self._p.parameter(name, (size,), init, trained=self._adapter is None)

    def __call__(self, kind: str, layer: int | None = None) -> tuple[Parameter, Parameter]:
        suffix = "" if layer is None else f".{layer}"
        parameters = self._p.parameters
        return parameters[f"{kind}w{suffix}"], parameters[f"{kind}b{suffix}"]

    def linear(self, kind: str, layer: int, x_NI: Tensor) -> Tensor:
        """x · weightᵀ + bias, and what the adapter adds."""
        out = self._p.matmul(x_NI, *self(kind, layer))
        if self._adapter is not None and self._adapter.adapts(kind):
            out = self._adapter.extend(self._p, kind, layer, x_NI, out)
        assert isinstance(out, Tensor)
        return out

    def feed_forward(self, layer: int, x_NC: Tensor) -> Tensor:
        """The activation of the first linear layer; as one fused op where there is one."""
        if self._activation == "gelu" and (self._adapter is None or not self._adapter.adapts("fc")):
            result = self._p.matmul_gelu(x_NC, *self("fc", layer))
        else:
            result = self._p.call(self._activation, self.linear("fc", layer, x_NC))
        assert isinstance(result, Tensor)
        return result


def zeros(rng: np.random.Generator, shape: Shape) -> np.ndarray:
    return np.zeros(shape, np.float32)


def normal(scale: float) -> Init:
    """Normal with standard deviation 0.02 * scale, as GPT-2 was initialised."""

    def init(rng: np.random.Generator, shape: Shape) -> np.ndarray:
        values = rng.standard_normal(shape, np.float32)
        values *= np.float32(0.02 * scale)
        return values

    return init


def uniform(scale: float) -> Init:
    """Uniform in +-0.01, whatever the scale: the micro model's initialisation."""
    return lambda rng, shape: rng.uniform(-0.01, 0.01, shape).astype(np.float32)


INITS: dict[str, Callable[[float], Init]] = {"normal": normal, "uniform": uniform}


def _padded(init: Init, vocab_size: int) -> Init:
    """Rows beyond the vocabulary are zero; they are never a target and never sampled."""

    def padded(rng: np.random.Generator, shape: Shape) -> np.ndarray:
        values = init(rng, shape)
        values[vocab_size:] = 0
        return values

    return padded
