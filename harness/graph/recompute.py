"""Drop activations in the forward, and compute them again where the backward needs them.

    none    every activation that the backward reads is kept from the forward
    gelu    the outputs of GELU are dropped: as large as what they are made from, and cheap to make
    block   what is made within a block of the model, and read there alone, is dropped

Nothing is freed here. Calls that make what was dropped are recorded once more, right before the first
backward call that reads it, and the backward reads what those write, `gelu.7.out.again`. The forward's
own copy is then not needed beyond the forward, and the plan gives its memory away. A call that is made
again has the same kernel and the same inputs, so every gradient has the same bits.
"""

from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any

from harness.contract import Half, Op, Out
from harness.errors import ConfigError
from harness.graph.autodiff import Backward
from harness.graph.program import Call, Program, Tensor

MakesTheSame = Callable[[Op, Op], bool]
"""(fused op, part): whether the part's forward gives the bits that the fused op gave."""


def recompute(
    program: Program,
    backward: Backward,
    policy: str,
    results: Iterable[Tensor],
    makes_the_same: MakesTheSame,
) -> Backward:
    """The backward, with those calls of the forward in between that the policy makes again.

    results: what the host reads of the forward, which is never dropped.
    makes_the_same: says where an op's AGAIN may be used; elsewhere the tensor is kept.
    Raises ConfigError where no policy has this name.
    """
    if policy not in POLICIES:
        raise ConfigError(
            f"recompute={policy} is unknown",
            slug="unknown-recompute",
            there_are=", ".join(POLICIES),
        )
    recipes = POLICIES[policy](program, makes_the_same)
    for result in results:
        recipes.pop(result.root, None)
    return _Again(program, recipes).run(backward) if recipes else backward


def _nothing(program: Program, makes_the_same: MakesTheSame) -> dict[Tensor, Call]:
    return {}


def _of_gelu(program: Program, makes_the_same: MakesTheSame) -> dict[Tensor, Call]:
    """Dropped tensor -> the call that makes it again, from what is kept."""
    found = {}
    gelu = program.ops["gelu"]
    for call in program.calls:
        for argument, tensor in call.written:
            if call.op is gelu and argument.role is Out:
                found[tensor.root] = call
            part, inputs = call.op.again.get(argument.name, (None, ()))
            if part == gelu.name and makes_the_same(call.op, gelu):
                found[tensor.root] = _call_of_part(call, gelu, tensor, inputs)
    return found


def _within_blocks(program: Program, makes_the_same: MakesTheSame) -> dict[Tensor, Call]:
    """The same, for whole blocks: what one leaves to another is kept."""
    found = {
        tensor.root: call
        for call in program.calls
        if call.block is not None
        for _, tensor in call.written
    }
    for call in program.calls:
        for _, tensor in call.read:
            if tensor.root in found and found[tensor.root].block != call.block:
                del found[tensor.root]
    return found


POLICIES: dict[str, Callable[[Program, MakesTheSame], dict[Tensor, Call]]] = {
    "none": _nothing,
    "gelu": _of_gelu,
    "block": _within_blocks,
}


def _call_of_part(call: Call, part: Op, out: Tensor, inputs: tuple[str, ...]) -> Call:
    """The forward of a part, as it makes one output of a fused call."""
    half = part.forward
    values = dict(
        zip((a.name for a in _given(half)), (call.arguments[n] for n in inputs), strict=True)
    )
    values[half.signature.outputs[0].name] = out
    shapes = {name: v.shape for name, v in values.items() if isinstance(v, Tensor)}
    arguments = {name: values[name] for name in half.signature.names}
    return Call(part, half, arguments, half.signature.bind(shapes), call.block)


def _given(half: Half) -> tuple[Any, ...]:
    return half.signature.inputs + half.signature.settings


class _Again:
    """recipes: dropped tensor -> the call that makes it."""

    def __init__(self, program: Program, recipes: dict[Tensor, Call]) -> None:
        self._program, self._recipes = program, recipes
        self._made: dict[Tensor, Tensor] = {}
        self._calls: list[Call] = []

    def run(self, backward: Backward) -> Backward:
        for call in backward.calls:
            arguments = {name: self._now(value) for name, value in call.arguments.items()}
            self._calls.append(replace(call, arguments=arguments))
        return replace(backward, calls=self._calls)

    def _now(self, value: Any) -> Any:
        """What stands for an argument in the backward: itself, or what was made again."""
        if not isinstance(value, Tensor):
            return value
        if value.root in self._recipes and value.root not in self._made:
            self._make(self._recipes[value.root])
        root = self._made.get(value.root)
        if root is None:
            return value
        return root if root.shape == value.shape else root.reshape(*value.shape)

    def _make(self, call: Call) -> None:
        """Record a forward call once more, and before it those that make what it reads."""
        arguments = dict(call.arguments)
        for argument in _given(call.half):
            arguments[argument.name] = self._now(arguments[argument.name])
        for argument, tensor in call.written:
            root = tensor.root
            made = self._program.tensor(f"{root.name}.again", root.shape, root.kind, root.dtype)
            # Whatever else the call writes is read from here too: the forward's copy is then free.
            self._made[root] = made
            arguments[argument.name] = (
                made if made.shape == tensor.shape else made.reshape(*tensor.shape)
            )
        self._calls.append(replace(call, arguments=arguments, again=True))
