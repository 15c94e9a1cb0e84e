"""A model as a list of op calls over named tensors: recorded once, without data.

    p = Program(ops)
    x_NI = p.input("x", (8, 16))
    weight_OI = p.parameter("weight", (4, 16), init=normal(0.02))
    out_NO = p.matmul(x_NI, weight_OI, None)

Every op of the contract is a method. Its arguments are the forward's inputs and settings; it returns
the forward's results (its `Out` buffers, or its first `Stat` where it has none).
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from harness.contract import Argument, Half, Op, OpTable, Out, Shape, Stat, State
from harness.errors import ConfigError

Init = Callable[[np.random.Generator, Shape], np.ndarray]


@dataclass(eq=False)
class Tensor:
    """A named array of a program. kind: input, parameter, state, activation, gradient.

    role: the dtype rule of a role (`activation`, `parameter`, `float32`, ...), or a dtype's name.
    base: the tensor that this one is a reshape of; they share memory.
    """

    name: str
    shape: Shape
    kind: str
    dtype: str
    program: "Program" = field(repr=False)
    base: "Tensor | None" = None

    def reshape(self, *shape: int) -> "Tensor":
        """The same memory in another shape."""
        if np.prod(shape) != np.prod(self.shape):
            raise ConfigError(
                f"{self.name} of shape {self.shape} cannot be reshaped to {shape}",
                slug="shape-misfit",
            )
        return Tensor(self.name, shape, self.kind, self.dtype, self.program, self.root)

    @property
    def root(self) -> "Tensor":
        return self.base or self

    @property
    def size(self) -> int:
        return int(np.prod(self.shape, dtype=np.int64))

    def __add__(self, other: "Tensor") -> "Tensor":
        added = self.program.residual(self, other)
        assert isinstance(added, Tensor)
        return added


@dataclass
class Parameter(Tensor):
    """A tensor that is trained. init: (generator, shape) -> float32 array; decay: by weight_decay.

    trained: False freezes it: no gradient is made. Parameters hash by identity, as tensors do.
    """

    init: Init = field(default=lambda rng, shape: np.zeros(shape, np.float32), repr=False)
    decay: bool = False
    trained: bool = True

    __hash__ = Tensor.__hash__

    def __eq__(self, other: object) -> bool:
        return self is other


@dataclass(eq=False)
class Call:
    """One half-op with its arguments: tensors, settings, or None for what is left out.

    block: which repeated part of the model it belongs to; None where it stands outside of all.
    again: whether it makes once more, for the backward, what the forward had made and dropped.
    """

    op: Op
    half: Half
    arguments: dict[str, Any]
    dims: dict[str, int]
    block: int | None = None
    again: bool = False

    @property
    def hook(self) -> str:
        return self.half.name

    def tensors(self, arguments: Sequence[Any]) -> list[tuple[Any, Tensor]]:
        """(argument, tensor) of those of these arguments that are not left out."""
        pairs = ((a, self.arguments[a.name]) for a in arguments)
        return [(a, tensor) for a, tensor in pairs if tensor is not None]

    @property
    def written(self) -> list[tuple[Any, Tensor]]:
        return self.tensors(self.half.signature.outputs)

    @property
    def read(self) -> list[tuple[Any, Tensor]]:
        return self.tensors(self.half.signature.inputs)


class Program:
    """Op calls in order, and the tensors they are over."""

    def __init__(self, ops: OpTable) -> None:
        self.ops = ops
        self.calls: list[Call] = []
        self.inputs: dict[str, Tensor] = {}
        self.parameters: dict[str, Parameter] = {}
        self.states: dict[str, Tensor] = {}
        self._names: dict[str, int] = {}
        self._block: int | None = None

    @contextmanager
    def block(self, number: int | None) -> Iterator[None]:
        """Calls recorded inside belong to this part of the model: a layer, say."""
        before, self._block = self._block, number
        try:
            yield
        finally:
            self._block = before

    def input(self, name: str, shape: Shape, dtype: str = "int32") -> Tensor:
        """A tensor that the host fills before each step."""
        tensor = self.inputs[name] = Tensor(self._unique(name), shape, "input", dtype, self)
        return tensor

    def parameter(
        self, name: str, shape: Shape, init: Init, decay: bool = False, trained: bool = True
    ) -> Parameter:
        """A tensor that is trained; initial values come from `init`."""
        if name in self.parameters:
            raise ConfigError(f"two parameters are called '{name}'", slug="name-taken")
        tensor = Parameter(self._unique(name), shape, "parameter", "parameter", self, None)
        tensor.init, tensor.decay, tensor.trained = init, decay, trained
        self.parameters[name] = tensor
        return tensor

    def state(self, name: str, shape: Shape, dtype: str = "float32") -> Tensor:
        """A tensor that calls update, and that is as they left it in the next run: a cache.

        It is zero at first. Only a `State` argument of an op can be given one.
        """
        if name in self.states:
            raise ConfigError(f"two states are called '{name}'", slug="name-taken")
        tensor = self.states[name] = Tensor(self._unique(name), shape, "state", dtype, self)
        return tensor

    def tensor(self, name: str, shape: Shape, kind: str, dtype: str) -> Tensor:
        return Tensor(self._unique(name), shape, kind, dtype, self)

    def _unique(self, name: str) -> str:
        seen = self._names[name] = self._names.get(name, 0) + 1
        return name if seen == 1 else f"{name}.{seen}"

    def __getattr__(self, name: str) -> Callable[..., Any]:
        if name.startswith("_") or name not in self.ops:
            raise AttributeError(f"no op is called '{name}'")
        return lambda *arguments: self.call(name, *arguments)

    def call(self, name: str, *arguments: Any) -> Any:
        """Record the forward of an op: its `State` buffers, inputs and settings, in their order.

        Raises ConfigError where shapes do not fit.
        """
        op = self.ops[name]
        signature = op.forward.signature
        updated = tuple(a for a in signature.outputs if a.role is State)
        wanted = updated + signature.inputs + signature.settings
        if len(arguments) != len(wanted):
            raise ConfigError(
                f"{name} takes {len(wanted)} arguments, and was called with {len(arguments)}",
                slug="wrong-arguments",
                expected=", ".join(a.name for a in wanted),
            )
        given = {a.name: value for a, value in zip(wanted, arguments, strict=True)}
        for argument in wanted:
            if given[argument.name] is None and not argument.optional:
                raise ConfigError(f"{name} needs {argument.name}", slug="wrong-arguments")
            _check_kind(name, argument, given[argument.name])
        shapes = {n: v.shape for n, v in given.items() if isinstance(v, Tensor)}
        dims = signature.bind(shapes, where=f"call {len(self.calls)} of the program")
        outputs = {}
        made = [a for a in signature.outputs if a.role is not State]
        for argument in made:
            kind = "activation"
            shape = signature.shape_of(argument, dims)
            assert argument.role is not None
            # A name that tells the reader where a tensor came from: matmul.3.out
            label = f"{name}.{len(self.calls)}.{argument.stem}"
            outputs[argument.name] = self.tensor(label, shape, kind, argument.role.dtype)
        named = {n: (outputs | given)[n] for n in signature.names}
        call = Call(op, op.forward, named, dims, self._block)
        self.calls.append(call)
        results = [outputs[a.name] for a in made if a.role is Out]
        if not results:
            results = [outputs[a.name] for a in made if a.role is Stat][:1]
        return results[0] if len(results) == 1 else tuple(results)


def _check_kind(op: str, argument: Argument, value: Any) -> None:
    """A `State` argument is given a state of the program, and nothing else is."""
    if not isinstance(value, Tensor) or (value.kind == "state") == (argument.role is State):
        return
    raise ConfigError(
        f"{op} cannot take {value.name} as {argument.name}",
        slug="wrong-arguments",
        expected="a state of the program" if argument.role is State else "no state of the program",
        found=f"{value.name}, of kind {value.kind}",
    )


def expand(
    program: Program, reason: Callable[[Op], str | None]
) -> tuple[Program, dict[str, str], dict[Tensor, Tensor]]:
    """The program with fused ops replaced by their decompositions, where `reason` gives one.

    reason: op -> why it is expanded, or None. Returns the new program, op name -> reason, and which
    tensor now stands for a result of an expanded call.
    """
    expanded = Program(program.ops)
    expanded.inputs, expanded.parameters = program.inputs, program.parameters
    expanded.states = program.states
    expanded._names = dict(program._names)
    replaced: dict[Tensor, Tensor] = {}
    reasons: dict[str, str] = {}

    def now(value: Any) -> Any:
        if not isinstance(value, Tensor):
            return value
        root = replaced.get(value.root, value.root)
        return root if root.shape == value.shape else root.reshape(*value.shape)

    for call in program.calls:
        why = reason(call.op) if call.op.fused else None
        if why is None:
            arguments = {name: now(value) for name, value in call.arguments.items()}
            expanded.calls.append(Call(call.op, call.half, arguments, call.dims, call.block))
            continue
        reasons[call.op.name] = why
        signature = call.half.signature
        inputs = [now(call.arguments[a.name]) for a in signature.inputs + signature.settings]
        assert call.op.decompose is not None
        with expanded.block(call.block):
            made = call.op.decompose(expanded, *inputs)
        made = made if isinstance(made, tuple) else (made,)
        results = [a for a in signature.outputs if a.role is Out]
        results = results or [a for a in signature.outputs if a.role is Stat][:1]
        for argument, tensor in zip(results, made, strict=True):
            replaced[call.arguments[argument.name]] = tensor.root
    return expanded, reasons, replaced


def wants_gradient(tensor: Tensor) -> bool:
    """Whether a tensor can need a gradient at all: not ids, inputs or frozen parameters."""
    root = tensor.root
    return root.trained if isinstance(root, Parameter) else root.kind == "activation"
