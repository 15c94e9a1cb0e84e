"""Hold a plugin's functions to the specification: the same names, in the same order, and no more.

pluggy accepts an implementation that leaves arguments out; here the error shows both signatures.
"""

import inspect
from collections.abc import Callable, Mapping
from types import ModuleType
from typing import Any

from harness.contract import Op, OpTable
from harness.contract.precision import POLICIES
from harness.contract.signature import source_line
from harness.contract.table import nearest
from harness.device import hooks as device
from harness.errors import PluginError


def check_function(hook: str, function: Any, name: str, source: str, ops: OpTable) -> None:
    """Raise PluginError where a function differs from the specification of its hook.

    name, source: the backend that it belongs to, and where that came from.
    """

    def refuse(why: str, **facts: object) -> PluginError:
        return PluginError(
            f"{hook} of backend '{name}' ({source}) is refused: {why}",
            slug="plugin-refused",
            where=source_line(function),
            **facts,
        )

    if not inspect.isfunction(function):
        raise refuse(
            f"it is a {type(function).__name__}, not a plain function",
            do="mark a plain function that calls it",
        )
    if hook in device.HOOKS:
        spec: Callable[..., Any] = getattr(device, hook)
    else:
        if not any(hook in op.hooks for op in _candidates(hook, ops)):
            raise refuse("no op has a half of this name", nearest=nearest(hook, ops.hooks))
        spec = ops.half(hook).spec
    expected = list(inspect.signature(spec).parameters)
    parameters = inspect.signature(function).parameters.values()
    plain = all(
        p.kind is p.POSITIONAL_OR_KEYWORD and p.default is inspect.Parameter.empty
        for p in parameters
    )
    if [p.name for p in parameters] != expected or not plain:
        raise refuse(
            "its arguments differ from the specification",
            expected=f"{hook}({', '.join(expected)})",
            found=f"{hook}{_plain(inspect.signature(function))}",
            do="same names, same order, no defaults, no *args, nothing keyword-only",
        )


def variants_of(
    module: ModuleType, name: str, source: str, ops: OpTable
) -> Mapping[tuple[str, str], Callable[..., Any]]:
    """The module's functions for single precisions, held to the same signatures as the others."""
    found: dict[tuple[str, str], Callable[..., Any]] = getattr(module, "variants", {})
    for (hook, precision), function in found.items():
        check_function(hook, function, name, source, ops)
        if precision not in POLICIES:
            raise PluginError(
                f"backend '{name}' ({source}) has a variant of {hook} for '{precision}'",
                slug="unknown-precision-variant",
                there_are=", ".join(POLICIES),
            )
    return found


def _plain(signature: inspect.Signature) -> inspect.Signature:
    """A signature without its annotations: names, defaults, * and / remain."""
    empty = inspect.Parameter.empty
    parameters = [p.replace(annotation=empty) for p in signature.parameters.values()]
    return inspect.Signature(parameters)


def _candidates(hook: str, ops: OpTable) -> list[Op]:
    stem = hook.removesuffix("_forward").removesuffix("_backward")
    return [ops[name] for name in dict.fromkeys((stem, hook)) if name in ops]
