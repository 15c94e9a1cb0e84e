"""While one backend is judged, the others raise if called: a kernel that delegates is found out.

Their functions are replaced in place, code and all, so it does not matter by which name they were
imported; what was called is remembered, so catching the exception does not help either.
"""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from types import CodeType, FunctionType, ModuleType
from typing import Any

from harness.contract import Half, OpTable, reference
from harness.plugins import Backend, installed
from harness.plugins.loading import MARK

_called: list[str] = []


class Delegated(AssertionError):  # noqa: N818  (says what happened)
    """A kernel under judgement called another backend's function."""


def refuse(name: str) -> None:
    """What the functions of other backends do while one is judged."""
    _called.append(name)
    raise Delegated(f"{name} of another backend was called")


@cache
def _raising_code(name: str, free: int) -> CodeType:
    """Code that calls refuse(name), with as many free variables as what it stands in for."""
    variables = [f"free_{i}" for i in range(free)]
    source = (
        f"def enclose({', '.join(variables)}):\n"
        f"    def stand_in(*args, **kwargs):\n"
        f"        ({', '.join([*variables, '0'])})\n"
        f"        import harness.conformance.delegation as delegation\n"
        f"        delegation.refuse({name!r})\n"
        f"    return stand_in\n"
    )
    scope: dict[str, Any] = {}
    exec(source, scope)  # a function's code can only be replaced by code of the same closure
    code: CodeType = scope["enclose"](*variables).__code__
    return code


@contextmanager
def others_raise(others: list[tuple[FunctionType, str]]) -> Iterator[list[str]]:
    """Within it, each of `others` raises. Yields the names of those that were called."""
    _called.clear()
    originals = [function.__code__ for function, _ in others]
    try:
        for function, name in others:
            free = len(function.__code__.co_freevars)
            function.__code__ = _raising_code(name, free)
        yield _called
    finally:
        for (function, _), code in zip(others, originals, strict=True):
            function.__code__ = code


def functions_of_others(backend: Backend, ops: OpTable) -> list[tuple[FunctionType, str]]:
    """The half-op functions of every loaded backend but this one, and the float64 formulas."""
    own = _package(backend.module)
    found: dict[Any, str] = {}
    for name, module in _loaded({n: p for n, p in _packages().items() if p != own}):
        for attribute, value in list(vars(module).items()):
            if isinstance(value, FunctionType) and getattr(value, MARK, None) is not None:
                found[value] = f"{attribute} of backend '{name}'"
    # A function that this backend shows as its own stays callable; `borrowed` refuses it by itself.
    if backend.name != "reference":
        for function in (*backend.functions.values(), *backend.variants.values()):
            found.pop(function, None)
    if backend.name != "reference":
        for op in ops.values():
            for half in op.halves:
                if isinstance(half.reference, FunctionType):
                    found[half.reference] = f"the float64 reference of {half.name}"
        found[Half.outputs] = "the float64 reference"
        found[reference.in_float64] = "the float64 reference"
    return list(found.items())


def borrowed(backend: Backend, hook: str) -> str | None:
    """The other backend that a function really belongs to, None if it is this one's own."""
    if backend.module is None:
        return None
    home = getattr(backend.functions[hook], "__module__", "") or ""
    for name, package in _packages().items():
        inside = home == package or home.startswith(package + ".")
        if inside and package != _package(backend.module):
            return name
    return None


def loaded_modules() -> frozenset[str]:
    """The modules of installed backends that are imported now."""
    return frozenset(module.__name__ for _, module in _loaded(_packages()))


def foreign(modules: frozenset[str], backend: Backend) -> list[str]:
    """Those of `modules` that belong to another backend than this one."""
    own = _package(backend.module)
    return sorted(m for m in modules if not own or not (m == own or m.startswith(own + ".")))


def _package(module: ModuleType | None) -> str:
    if module is None:
        return ""
    return module.__name__.rpartition(".")[0] or module.__name__


def _packages() -> dict[str, str]:
    """Backend -> the package that its module is in, or the module where it is in none."""
    return {n: p.module.rpartition(".")[0] or p.module for n, p in installed().items()}


def _loaded(packages: dict[str, str]) -> list[tuple[str, ModuleType]]:
    """(backend, module) of what is imported of these packages."""
    of_package = {package: name for name, package in packages.items()}
    beginnings = tuple(of_package)
    found = []
    for name, module in list(sys.modules.items()):
        if name.startswith(beginnings) and isinstance(module, ModuleType):
            for package, backend in of_package.items():
                if name == package or name.startswith(package + "."):
                    found.append((backend, module))
    return found
