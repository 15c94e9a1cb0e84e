"""Give the logits of the next token of each row: from a cache, or by computing the whole text again.

    decoder = Decoder(model, parameters, dispatch, B=2, capacity=144)
    logits_BV = decoder.start([[464, 2068], [1639]])       # a prompt for each row
    logits_BV = decoder.step(np.array([7586, 318]))        # a token for each row

`Recomputer` has the same methods and needs no op but those of training. Which of them runs is the
caller's choice; neither takes the other's place.

Positions are learned, so a cache cannot slide: a key holds the position that it was made at. A text
longer than the model's positions keeps its newest half of them, computed again from position 0.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from harness.contract.precision import Precision
from harness.errors import ConfigError
from harness.execution.executor import Executor
from harness.execution.parameters import Parameters, bf16_weight_bytes
from harness.execution.shared_buffers import SharedBuffers
from harness.graph.program import Program, Tensor
from harness.models.gpt2 import GPT2, Adapter, build
from harness.models.gpt2_decode import build_decode, build_head, check_decodes
from harness.planning.memory_budget import MemoryNeed, host_bytes
from harness.planning.planner import make_plan
from harness.plugins.dispatch import Dispatch
from harness.plugins.op_errors import naming_the_op
from harness.tokenizers.token_ids import check_token_ids

MAX_PREFILL = 256
"""Tokens of a row that enter the cache in one go; a longer prompt comes in several."""

MIN_PREFILL = 8

MAX_PLANS = 256
"""Lengths that a Recomputer keeps plans of."""


class NextToken(ABC):
    """The text of each row, and executors that share parameters and memory.

    parameters: of a program of the same model; they may go on changing between two calls of `start`.
    B: rows. capacity: the most tokens of a row, prompt included; the model's positions if None.
    memory: what the caller's run needs already; the decoder's needs are added and checked.
    Raises ConfigError where the model cannot decode so, ResourceError where the memory will not do.
    """

    def __init__(
        self,
        model: GPT2,
        parameters: Parameters,
        dispatch: Dispatch,
        *,
        B: int = 1,
        capacity: int | None = None,
        precision: Precision | None = None,
        adapter: Adapter | None = None,
        wrappers: tuple[Any, ...] = (),
        transfer: str = "refuse",
        memory: MemoryNeed | None = None,
    ) -> None:
        self.model, self.parameters, self.dispatch = model, parameters, dispatch
        self.B = B
        self.capacity = min(capacity or model.positions, model.positions)
        self._precision = precision or Precision()
        self._adapter, self._wrappers, self._transfer = adapter, wrappers, transfer
        self._memory = memory or MemoryNeed(lambda needed, available: _ways_out(B))
        self._counted = 0
        self._shared = SharedBuffers()
        self._executors: dict[object, Executor] = {}
        self._texts: list[list[int]] = []

    def start(self, prompts: Sequence[Sequence[int]]) -> np.ndarray:
        """Begin with a prompt for each row, of at least one token; what was before is forgotten.

        Returns float32 logits over the vocabulary, (B, vocab_size), of the token after each prompt.
        """
        assert len(prompts) == self.B, f"{self.B} prompts, one for each row"
        assert all(len(prompt) for prompt in prompts), "a prompt has a token at least"
        self._texts = []
        texts = [check_token_ids(list(p), self.model.vocab_size).tolist() for p in prompts]
        with self._naming_the_op():
            # What is made of the parameters is common to all executors: that of one is that of all.
            next(iter(self._executors.values())).refresh()
            self._texts = [self._kept(text) for text in texts]
            return self._begin()

    def step(self, tokens_B: npt.ArrayLike) -> np.ndarray:
        """Add a token to each row; returns the logits of the one after it, as `start` does."""
        tokens = check_token_ids(tokens_B, self.model.vocab_size).tolist()
        assert len(tokens) == len(self._texts) == self.B, "start first, then a token for each row"
        texts = [[*text, token] for text, token in zip(self._texts, tokens, strict=True)]
        self._texts = [self._kept(text) for text in texts]
        with self._naming_the_op():
            return self._go_on() if self._texts == texts else self._begin()

    def _kept(self, text: list[int]) -> list[int]:
        """The text, or its newest half of the positions where it has outgrown them."""
        if len(text) <= self.capacity:
            return text
        if self.capacity < self.model.positions:
            raise ConfigError(
                f"a text of {len(text)} tokens does not fit a decoder made for {self.capacity}",
                slug="decoder-too-short",
                expected="capacity: the longest prompt and all that is generated after it",
            )
        return text[-max(1, self.capacity // 2) :]

    @abstractmethod
    def _begin(self) -> np.ndarray:
        """The logits of all rows, whatever was computed before."""

    @abstractmethod
    def _go_on(self) -> np.ndarray:
        """The logits of all rows, of which each has one token more than at the last call."""

    def _naming_the_op(self) -> Any:
        return naming_the_op(self.dispatch.backends, self._wrappers)

    def _executor(self, program: Program, result: Tensor | None) -> Executor:
        plan = make_plan(
            program,
            [] if result is None else result,
            self.dispatch,
            self._precision,
            train=False,
            home=self.parameters.device.name,
            transfer=self._transfer,
            layout=self.parameters.layout,
        )
        low = bf16_weight_bytes(plan, self.parameters)
        if low:
            self._memory.add("weights in bfloat16", low)
        need = host_bytes(plan)
        if need > self._counted:  # what executors have in common is counted once
            self._memory.add(f"{self.B} rows of up to {self.capacity} tokens", need - self._counted)
            self._memory.check(plan)
            self._counted = need
        with self._naming_the_op():
            return Executor(plan, self.parameters, self._wrappers, self._shared)

    def _logits(self, executor: Executor) -> np.ndarray:
        return executor.read()[:, : self.model.vocab_size].astype(np.float32, copy=False)

    def _padded(self, first: int, T: int) -> np.ndarray:
        """Tokens first .. first + T of each row, zeros where it has ended: nobody sees them."""
        tokens_BT = np.zeros((self.B, T), np.int32)
        for row, text in zip(tokens_BT, self._texts, strict=True):
            part = text[first : first + T]
            row[: len(part)] = part
        return tokens_BT


class Decoder(NextToken):
    """From a cache: each step computes one new token of each row.

    The cache takes 8 bytes x layers x channels for each of the B x capacity tokens.
    """

    def __init__(
        self, model: GPT2, parameters: Parameters, dispatch: Dispatch, **options: Any
    ) -> None:
        check_decodes(model)
        super().__init__(model, parameters, dispatch, **options)
        self._one = self._executors[1, "logits"] = self._build(1, "logits")

    def _build(self, T: int, head: str | None) -> Executor:
        program, result = build_decode(
            self.dispatch.ops,
            self.model,
            self.B,
            T,
            self.capacity,
            head=head,
            adapter=self._adapter,
        )
        return self._executor(program, result)

    def _begin(self) -> np.ndarray:
        """Fill the cache with all but the last token of each row, which the first step then takes.

        A row that is shorter than others leaves zeros' keys behind its end; each of them is
        overwritten in the step that is the first to see its place.
        """
        longest = max(len(text) for text in self._texts) - 1
        first = 0
        while first < longest:
            T = self._prefill_length(longest - first, self.capacity - first)
            if (T, None) not in self._executors:
                self._executors[T, None] = self._build(T, None)
            executor = self._executors[T, None]
            executor.write("tokens", self._padded(first, T))
            executor.write("position", np.full(self.B, first, np.int32))
            executor.forward()
            first += T
        return self._go_on()

    def _prefill_length(self, left: int, room: int) -> int:
        """A power of two, so that few plans are made; never beyond the cache."""
        wanted, T = min(left, MAX_PREFILL), MIN_PREFILL
        while wanted > T:
            T *= 2
        return min(T, room)

    def _go_on(self) -> np.ndarray:
        last_B1 = np.array([text[-1:] for text in self._texts], np.int32)
        position_B = np.array([len(text) - 1 for text in self._texts], np.int32)
        self._one.write("tokens", last_B1)
        self._one.write("position", position_B)
        self._one.forward()
        return self._logits(self._one)


class Recomputer(NextToken):
    """Without a cache: each step computes the text of every row anew, and the head on its last token.

    For models whose attention has no op that decodes, and as what a cache is measured against.
    """

    def __init__(
        self, model: GPT2, parameters: Parameters, dispatch: Dispatch, **options: Any
    ) -> None:
        super().__init__(model, parameters, dispatch, **options)
        program, logits = build_head(dispatch.ops, model, self.B, self._adapter)
        self._head = self._executor(program, logits)
        self._body(1)

    def _body(self, T: int) -> Executor:
        """The model without its head, of T tokens a row."""
        if T not in self._executors:
            if len(self._executors) == MAX_PLANS:
                self._executors.pop(next(iter(self._executors)))
            program, hidden = build(
                self.dispatch.ops, self.model, self.B, T, head="hidden", adapter=self._adapter
            )
            self._executors[T] = self._executor(program, hidden)
            self._executors[T].write("position", np.zeros(self.B, np.int32))
        return self._executors[T]

    def _begin(self) -> np.ndarray:
        lengths = [len(text) for text in self._texts]
        body = self._body(max(lengths))
        body.write("tokens", self._padded(0, max(lengths)))
        body.forward()
        hidden_BC = body.read()[np.arange(self.B), np.array(lengths) - 1]
        self._head.write("hidden", hidden_BC)
        self._head.forward()
        return self._logits(self._head)

    def _go_on(self) -> np.ndarray:
        return self._begin()


def _ways_out(B: int) -> list[str]:
    shorter = "a shorter prompt, or length=N for fewer new tokens"
    return ["batch_size=1   one row after another", shorter] if B > 1 else [shorter]
