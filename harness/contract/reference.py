"""The float64 formulas of the op files as a backend called `reference`.

Each half computes in float64 from whatever it is given, and rounds once, when it writes.
"""

from collections.abc import Callable, Iterator, Mapping
from functools import cache
from typing import Any

import numpy as np

from harness.contract import Acc, Half, OpTable, State
from harness.errors import ConfigError


class Functions(Mapping[str, Callable[..., None]]):
    """Hook name -> function, for every op of a table, ops of plugins included."""

    def __init__(self, ops: OpTable) -> None:
        self._ops = ops
        self._function = cache(lambda hook: make_function(ops.half(hook)))

    def __getitem__(self, hook: str) -> Callable[..., None]:
        try:
            return self._function(hook)
        except ConfigError:
            raise KeyError(hook) from None

    def __iter__(self) -> Iterator[str]:
        return iter(self._ops.hooks)

    def __len__(self) -> int:
        return len(self._ops.hooks)


def make_function(half: Half) -> Callable[..., None]:
    """A function with the half-op's arguments that fills its outputs by the float64 formula."""
    signature = half.signature
    names = signature.names
    outputs = [(a.name, a.role is Acc) for a in signature.outputs]
    read = {a.name for a in signature.inputs} | {
        a.name for a in signature.outputs if a.role is State
    }

    def function(*arguments: Any) -> None:
        given = dict(zip(names, arguments, strict=True))
        shapes = {a.name: np.shape(given[a.name]) for a in signature.buffers if _there(given, a)}
        values = {n: in_float64(v) if n in read else v for n, v in given.items()}
        # A letter that only a left-out buffer has is None: nothing needs it.
        dims = dict.fromkeys(signature.letters) | signature.bind(shapes)
        results = half.outputs(values, dims)
        for name, accumulates in outputs:
            if given[name] is None:
                continue
            if accumulates and given["accumulate"]:
                results[name] = results[name] + in_float64(given[name])
            given[name][...] = results[name]

    function.__name__ = function.__qualname__ = signature.name
    function.__wrapped__ = half.reference  # type: ignore[attr-defined]
    return function


def _there(given: Mapping[str, Any], argument: Any) -> bool:
    return given[argument.name] is not None


def in_float64(value: Any) -> Any:
    """A floating array as float64; anything else as it is."""
    if isinstance(value, np.ndarray) and value.dtype.kind not in "iub":
        return value.astype(np.float64)
    return value
