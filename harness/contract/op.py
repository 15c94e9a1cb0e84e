"""Gather all that the core knows of an op from its one file, and refuse a file that forgets something.

An op file holds, by these names:

    <op>_forward, <op>_backward   hook specifications (or one, <op>, for an op without halves)
    reference_forward, reference_backward   the formula in float64 NumPy: the half's inputs, settings and
                                  (where it needs them) dimension letters, by name -> its outputs
    magnitude_forward, magnitude_backward   the same arguments -> `Magnitude(S, n)` for each output
    flops_forward, flops_backward dimension letters by name -> floating point operations
    example_settings              dimension letters as a dict -> a setting for each name
    SHAPES                        the dimension letters of real GPT-2 124M calls, for benchmarks

and where it applies:

    example_inputs                (rng, dims) -> inputs that random numbers would not make valid
    never_read                    inputs and letters, by name -> {buffer: which of its elements, by its
                                  leading dimensions, the call must not read}
    bytes_forward, bytes_backward where an op gathers: bytes touched, from the letters
    MAY_ALIAS                     {half: ((output, input), ...)} that may share memory
    PASSES_GRADIENT               inputs whose gradient *is* that of the output (residual)
    SHARED_GRADIENT               {"b_NC": "da_NC"}: the gradient of b is the buffer da
    PARTS, decompose              a fused op: the ops it replaces, and the same as a program of them
    AGAIN                         {"out_NO": ("gelu", ("pre_NO",))}: a forward's output that the forward
                                  of a part makes again, from these arguments of the fused forward
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any, NamedTuple

from pluggy import HookspecMarker

from harness.contract.roles import Acc, In, Out, Param, State
from harness.contract.signature import Argument, Signature, malformed, read_signature
from harness.errors import PluginError

hookspec = HookspecMarker("harness")


class Magnitude(NamedTuple):
    """What one output's tolerance is scaled by (docs/conformance.md).

    S: the op's magnitude in float64, broadcastable to the output: a dot product with absolute values.
    n: the length of the longest sum behind one element.
    """

    S: Any
    n: int


@dataclass(frozen=True)
class Half:
    """One half of an op: its signature and what it is judged by."""

    signature: Signature
    spec: Callable[..., None]
    reference: Callable[..., tuple[Any, ...]]
    magnitude: Callable[..., tuple[Magnitude, ...]]
    flops: Callable[..., int]
    bytes: Callable[..., int] | None
    may_alias: tuple[tuple[str, str], ...] = ()

    @property
    def name(self) -> str:
        return self.signature.name

    def outputs(self, values: Mapping[str, Any], dims: Mapping[str, int | None]) -> dict[str, Any]:
        """What the formula gives in float64: output name -> array.

        values: the half's inputs, `State` buffers and settings by name; others are ignored.
        """
        results = by_name(self.reference, {**dims, **values})
        return dict(zip((a.name for a in self.signature.outputs), results, strict=True))

    def magnitudes(
        self, values: Mapping[str, Any], dims: Mapping[str, int]
    ) -> dict[str, Magnitude]:
        """The tolerance's magnitude of each output, from the same values as `outputs`."""
        results = by_name(self.magnitude, {**dims, **values})
        return dict(zip((a.name for a in self.signature.outputs), results, strict=True))

    def count_flops(self, dims: Mapping[str, int]) -> int:
        return int(by_name(self.flops, dims))

    def count_bytes(self, dims: Mapping[str, int], itemsize: Callable[[Argument], int]) -> int:
        """Bytes that the half must move: each buffer read or written once, `State` both ways.

        An op that gathers states its own (float32) bytes instead.
        """
        if self.bytes is not None:
            return int(by_name(self.bytes, dims))
        return sum(
            math.prod(self.signature.shape_of(a, dims))
            * itemsize(a)
            * (2 if a.role is State else 1)
            for a in self.signature.buffers
        )


def by_name(function: Callable[..., Any], values: Mapping[str, Any]) -> Any:
    """Call a function of an op file with the values that its parameters name."""
    code = function.__code__
    return function(*(values[name] for name in code.co_varnames[: code.co_argcount]))


@dataclass(frozen=True)
class Op:
    """An op of the contract: a pair of halves, or a single one (`backward` is None)."""

    name: str
    forward: Half
    backward: Half | None
    shapes: tuple[Mapping[str, int], ...]
    example_settings: Callable[[Mapping[str, int]], dict[str, Any]]
    example_inputs: Callable[..., dict[str, Any]] | None
    never_read: Callable[..., dict[str, Any]] | None
    parts: tuple[str, ...]
    decompose: Callable[..., Any] | None
    passes_gradient: tuple[str, ...]
    shared_gradient: Mapping[str, str] = field(default_factory=dict)
    again: Mapping[str, tuple[str, tuple[str, ...]]] = field(default_factory=dict)
    summary: str = ""
    file: str = ""

    @property
    def halves(self) -> tuple[Half, ...]:
        return (self.forward,) if self.backward is None else (self.forward, self.backward)

    @property
    def hooks(self) -> tuple[str, ...]:
        """The hook names: `layernorm_forward`, `layernorm_backward`."""
        return tuple(half.name for half in self.halves)

    @property
    def fused(self) -> bool:
        return bool(self.parts)

    def half(self, hook: str) -> Half:
        return next(half for half in self.halves if half.name == hook)

    def gradient_of(self, argument: Argument) -> Argument | None:
        """The backward's output that holds the gradient of a forward input, None if it has none."""
        if self.backward is None or argument.role not in (In, Param):
            return None
        shared = self.shared_gradient.get(argument.name)
        if shared:
            return self.backward.signature[shared]
        name = "d" + argument.name
        return self.backward.signature.get(name)


def read_op(module: ModuleType, name: str | None = None) -> Op:
    """The op that a file declares. Raises PluginError, naming what is missing or contradictory."""
    name = name or module.__name__.rpartition(".")[2]
    paired = hasattr(module, f"{name}_forward")
    forward = _read_half(module, f"{name}_forward" if paired else name, "forward")
    backward = _read_half(module, f"{name}_backward", "backward") if paired else None
    parts = tuple(getattr(module, "PARTS", ()))
    op = Op(
        name=name,
        forward=forward,
        backward=backward,
        shapes=tuple(getattr(module, "SHAPES", ())),
        example_settings=getattr(module, "example_settings", lambda dims: {}),
        example_inputs=getattr(module, "example_inputs", None),
        never_read=getattr(module, "never_read", None),
        parts=parts,
        decompose=_needed(module, name, "decompose") if parts else None,
        passes_gradient=tuple(getattr(module, "PASSES_GRADIENT", ())),
        shared_gradient=dict(getattr(module, "SHARED_GRADIENT", {})),
        again=dict(getattr(module, "AGAIN", {})),
        summary=(module.__doc__ or "").strip().partition("\n")[0],
        file=module.__file__ or "",
    )
    if backward is not None:
        _check_pair(op, backward)
    _check_again(op)
    return op


def _needed(module: ModuleType, op: str, name: str) -> Any:
    found = getattr(module, name, None)
    if found is None:
        raise PluginError(
            f"the op file of {op} has no {name}",
            slug="op-incomplete",
            where=module.__file__,
            do="harness/contract/op.py lists what an op file holds",
        )
    return found


def _read_half(module: ModuleType, hook: str, half: str) -> Half:
    spec = _needed(module, hook, hook)
    aliases = getattr(module, "MAY_ALIAS", {})
    return Half(
        signature=read_signature(spec),
        spec=spec,
        reference=_needed(module, hook, f"reference_{half}"),
        magnitude=_needed(module, hook, f"magnitude_{half}"),
        flops=_needed(module, hook, f"flops_{half}"),
        bytes=getattr(module, f"bytes_{half}", None),
        may_alias=tuple(aliases.get(hook, ())),
    )


def _check_pair(op: Op, backward: Half) -> None:
    """Every In and Param has its gradient, and every argument of the backward has a source."""
    forward, signature = op.forward.signature, backward.signature

    def refuse(why: str) -> PluginError:
        return malformed(backward.spec, why)

    gradients = set()
    for argument in forward.inputs:
        if argument.role not in (In, Param):
            continue
        gradient = op.gradient_of(argument)
        if gradient is None:
            raise refuse(
                f"it has no d{argument.name}, the gradient of {argument.name} in {forward}; "
                "without it that gradient would vanish silently"
            )
        if gradient.dims != argument.dims:
            raise refuse(f"{gradient.name} and {argument.name} have different shapes")
        if argument.role is Param and gradient.role is not Acc:
            raise refuse(f"{gradient.name} is the gradient of a Param and must be an Acc")
        if argument.role is In and gradient.role is not Out:
            raise refuse(f"{gradient.name} is the gradient of an In and must be an Out")
        gradients.add(gradient.name)
    # What a program can use of a call: its Out buffers, or its first Stat where it has none.
    results = [a for a in forward.outputs if a.role is Out] or list(forward.outputs[:1])
    for result in results:
        if "d" + result.name not in signature:
            raise refuse(
                f"it has no d{result.name}, the gradient that reaches {result.name} of {forward}; "
                "without it that gradient would vanish silently"
            )

    upstream = {"d" + output.name for output in forward.outputs}
    known = gradients | upstream | set(forward.names) | {"accumulate"}
    for argument in signature.arguments:
        if argument.name not in known:
            raise refuse(
                f"{argument.name} is neither a gradient nor an argument of {forward}, "
                "so no program could pass it"
            )
    accumulates = any(a.role is Acc for a in signature.buffers)
    if accumulates != ("accumulate" in signature):
        raise refuse("`accumulate: bool` is there exactly when there is an Acc")


def _check_again(op: Op) -> None:
    """What AGAIN names is there: an output of the forward, a part, and arguments of the forward."""
    forward = op.forward.signature
    outputs = [a.name for a in forward.outputs]
    for output, (part, inputs) in op.again.items():
        if output not in outputs:
            raise malformed(op.forward.spec, f"AGAIN names {output}, which it does not write")
        if part not in op.parts:
            raise malformed(op.forward.spec, f"AGAIN names {part}, which is not one of its PARTS")
        for name in inputs:
            if name not in forward or name == output:
                raise malformed(op.forward.spec, f"AGAIN cannot make {output} from {name}")
