"""Read a hook specification: which buffers, of which shape and role, and which settings.

The suffix of an argument is its shape: `x_NC` has rows N and channels C, `qkv_BT3HD` has a literal 3.
A letter has one value within one call. Everything that the harness knows of a call (shape checks,
output shapes, who writes what, bytes moved) is read from here.
"""

import inspect
import math
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from types import UnionType
from typing import Any, get_args

from harness.contract.roles import Acc, Kept, Out, Role, Stat, State
from harness.errors import ConfigError, PluginError

Shape = tuple[int, ...]
SUFFIXED = re.compile(r"(?P<stem>[a-z]\w*)_(?P<dims>[A-Z0-9]+)")
SETTINGS = (bool, float, int)


@dataclass(frozen=True)
class Argument:
    """One argument of a half-op: a buffer with a role, or a setting without.

    name: as in the signature, `x_NC`; stem: `x`; dims: ("N", "C"), a digit is a literal extent.
    role: None for a setting, whose type is then `kind`.
    optional: the plan may pass None.
    """

    name: str
    stem: str
    dims: tuple[str, ...]
    role: type[Role] | None
    optional: bool = False
    kind: type | None = None

    @property
    def is_buffer(self) -> bool:
        return self.role is not None

    def __str__(self) -> str:
        kind = self.role or self.kind
        assert kind is not None
        return f"{self.name}: {kind.__name__}" + (" | None" if self.optional else "")


@dataclass(frozen=True)
class Signature:
    """The arguments of one half-op, in order: buffers written, buffers read, settings."""

    name: str
    arguments: tuple[Argument, ...]
    backward: bool
    doc: str = ""

    def __getitem__(self, name: str) -> Argument:
        return next(a for a in self.arguments if a.name == name)

    def get(self, name: str) -> Argument | None:
        return next((a for a in self.arguments if a.name == name), None)

    def __contains__(self, name: object) -> bool:
        return any(a.name == name for a in self.arguments)

    def __str__(self) -> str:
        return f"{self.name}({', '.join(a.name for a in self.arguments)})"

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(a.name for a in self.arguments)

    @property
    def buffers(self) -> tuple[Argument, ...]:
        return tuple(a for a in self.arguments if a.is_buffer)

    @property
    def settings(self) -> tuple[Argument, ...]:
        return tuple(a for a in self.arguments if not a.is_buffer)

    def writes(self, argument: Argument) -> bool:
        """Whether the half-op fills or updates this buffer."""
        if argument.role is Stat:
            return not self.backward
        return argument.role in (Out, Kept, Acc, State)

    @property
    def outputs(self) -> tuple[Argument, ...]:
        return tuple(a for a in self.buffers if self.writes(a))

    @property
    def inputs(self) -> tuple[Argument, ...]:
        return tuple(a for a in self.buffers if not self.writes(a))

    @property
    def letters(self) -> tuple[str, ...]:
        """The dimension letters in order of first use."""
        return tuple(dict.fromkeys(d for a in self.buffers for d in a.dims if d.isalpha()))

    def bind(self, shapes: Mapping[str, Shape | None], where: str = "") -> dict[str, int]:
        """The value of each letter, from the shapes of some of the buffers (None: left out).

        Leading dimensions of a buffer merge into the first letter of its suffix.
        Raises ConfigError where a shape does not fit, or a letter has two values.
        """
        dims: dict[str, int] = {}
        source: dict[str, str] = {}
        for argument in self.buffers:
            shape = shapes.get(argument.name)
            if shape is None:
                continue
            found = merge_leading(shape, len(argument.dims))
            if found is None:
                raise self._misfit(argument, shape, where, "has too few dimensions")
            for letter, size in zip(argument.dims, found, strict=True):
                if letter.isdigit():
                    if size != int(letter):
                        raise self._misfit(argument, shape, where, f"needs a literal {letter}")
                elif dims.setdefault(letter, size) != size:
                    why = f"{letter} is {dims[letter]} by {source[letter]}, and {size} here"
                    raise self._misfit(argument, shape, where, why)
                else:
                    source.setdefault(letter, argument.name)
        return dims

    def _misfit(self, argument: Argument, shape: Shape, where: str, why: str) -> ConfigError:
        return ConfigError(
            f"{self.name}: {argument.name} does not fit: {why}",
            slug="shape-misfit",
            where=where or None,
            signature=str(self),
            found=f"{argument.name} of shape {shape}",
        )

    def shape_of(self, argument: Argument, dims: Mapping[str, int]) -> Shape:
        """The shape of a buffer once the letters are bound."""
        return tuple(int(d) if d.isdigit() else dims[d] for d in argument.dims)


def merge_leading(shape: Iterable[int], rank: int) -> Shape | None:
    """The shape as `rank` dimensions, leading ones multiplied together; None if it has too few."""
    shape = tuple(shape)
    extra = len(shape) - rank
    if extra < 0:
        return None
    return (math.prod(shape[: extra + 1]), *shape[extra + 1 :])


def read_signature(function: Callable[..., Any]) -> Signature:
    """Read a hook specification. Raises PluginError, naming file and line, where it is malformed."""
    arguments = []
    for parameter in inspect.signature(function).parameters.values():
        arguments.append(_read_argument(function, parameter))
    signature = Signature(
        name=function.__name__,
        arguments=tuple(arguments),
        backward=function.__name__.endswith("_backward"),
        doc=inspect.getdoc(function) or "",
    )
    order = [0 if signature.writes(a) else 1 if a.is_buffer else 2 for a in arguments]
    if order != sorted(order):
        raise malformed(function, "outputs come first, then inputs, then settings")
    return signature


def _read_argument(function: Callable[..., Any], parameter: inspect.Parameter) -> Argument:
    name, annotation = parameter.name, parameter.annotation
    if (
        parameter.kind is not parameter.POSITIONAL_OR_KEYWORD
        or parameter.default is not parameter.empty
    ):
        raise malformed(function, f"{name} must be a plain argument without a default")
    parts = get_args(annotation) if isinstance(annotation, UnionType) else (annotation,)
    kinds = [p for p in parts if p is not type(None)]
    optional = len(kinds) < len(parts)
    kind = kinds[0] if len(kinds) == 1 else None
    if kind in SETTINGS and not optional:
        return Argument(name, name, (), None, kind=kind)
    match = SUFFIXED.fullmatch(name)
    if not (isinstance(kind, type) and issubclass(kind, Role)):
        raise malformed(function, f"{name} needs a role, or bool, int or float; found {annotation}")
    if match is None:
        raise malformed(function, f"{name} needs a shape suffix, as in x_NC")
    return Argument(name, match["stem"], tuple(match["dims"]), kind, optional)


def malformed(function: Callable[..., Any], why: str) -> PluginError:
    return PluginError(
        f"the specification of {function.__name__} is refused: {why}",
        slug="spec-refused",
        where=source_line(function),
    )


def source_line(function: Callable[..., Any]) -> str:
    """`file:line` of a function, for messages."""
    code = getattr(inspect.unwrap(function), "__code__", None)
    return f"{code.co_filename}:{code.co_firstlineno}" if code else repr(function)
