"""Load the backends that a run names, check them against the contract, and explain failures.

A backend is a module: a `plugin.py` behind an entry point of the group `harness.backends`, or any
Python file. It states

    device = "host"            where its buffers live
    arrays = "numpy"           the kind of array its functions take: numpy, memoryview, ...
    computes = {"fp32": "f32"} precision -> the arithmetic it uses, or {op: arithmetic}

and holds plain functions marked `@hookimpl`, with the names and arguments of the specifications. A hook
that it does not hold, it does not have.
"""

import hashlib
import importlib.util
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pluggy

from harness import ROOT, __version__
from harness.contract import OpTable, core_ops, reference
from harness.contract.signature import source_line
from harness.contract.table import nearest
from harness.device import Device
from harness.device import hooks as device
from harness.errors import ConfigError, OpNotImplemented, PluginError
from harness.plugins.discovery import (
    BACKENDS,
    WRAPPERS,
    all_ops,
    broken,
    distribution_of,
    import_plugin,
    installed,
    only,
)
from harness.plugins.signatures import check_function, variants_of

MARK = "harness_impl"


@dataclass(frozen=True)
class Backend:
    """A loaded and checked backend.

    functions: hook name -> plain function. source: `distribution version`, or a file and its sha256.
    capturable: its ops only launch on the device's stream, so a captured step may hold them.
    slow: why a call takes long here whatever it computes (a simulator); judged on a shorter list then.
    options: the backend's own settings -> the values each may have, the default first.
    variants: (hook, precision) -> the function that computes it there, where that is another one than
        for the other precisions: float32 arrays look the same under fp32 and tf32.
    """

    name: str
    device: str
    arrays: str
    computes: Mapping[str, Any]
    functions: Mapping[str, Callable[..., Any]]
    source: str
    module: Any = field(repr=False, default=None)
    capturable: bool = False
    slow: str = ""
    options: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    variants: Mapping[tuple[str, str], Callable[..., Any]] = field(default_factory=dict)

    def __contains__(self, hook: object) -> bool:
        return hook in self.functions

    def function(self, hook: str, precision: str) -> Callable[..., Any]:
        """The function that computes a half-op at a precision."""
        return self.variants.get((hook, precision)) or self.functions[hook]

    def where(self, hook: str) -> str:
        """`file:line` of the function that implements a hook."""
        return source_line(self.functions[hook])

    def computes_in(self, op: str, precision: str) -> str | None:
        """The arithmetic declared for an op at a precision; None where it is not supported."""
        declared = self.computes.get(precision)
        if isinstance(declared, Mapping):
            return declared.get(op, declared.get("*"))
        return declared

    def adapt(self, buffer: Any) -> Any:
        """A buffer of this backend's device as the kind of array that its functions take."""
        if "adapt" in self.functions:
            return self.functions["adapt"](buffer)
        if self.device == "host":
            return device.HOST_ARRAYS[self.arrays](buffer)
        return self._owner.adapt(buffer) if self._owner else buffer

    def open_device(self) -> Device:
        """The device that this backend's buffers live on."""
        if self.device == "host":
            return device.HOST
        if self._owner:
            return self._owner.open_device()
        missing = [hook for hook in device.REQUIRED if hook not in self.functions]
        if missing:
            raise PluginError(
                f"backend '{self.name}' is on the device '{self.device}' and does not implement "
                + ", ".join(missing),
                slug="device-incomplete",
                do="harness/device/hooks.py says what each must do",
            )
        hooks = {hook: self.functions[hook] for hook in device.HOOKS if hook in self.functions}
        opened: Any = SimpleNamespace(name=self.device, **hooks)
        return opened

    @cached_property
    def _owner(self) -> "Backend | None":
        """The backend that owns the memory of one which has an op and no device hooks at all.

        A file with a kernel, `device = "cuda"` and `arrays = "numba"`, runs on numba_cuda's device: the
        installed backend that states the same two.
        """
        if self.device == "host" or any(hook in self.functions for hook in device.REQUIRED):
            return None
        # These first: the others need not be imported then.
        likely = (f"{self.arrays}_{self.device}", self.arrays)
        there = installed()
        for name in dict.fromkeys((*likely, *sorted(there))):
            if name not in there or name == self.name:
                continue
            try:
                owner = load(name, all_ops())
            except PluginError:
                if name in likely:
                    raise
                continue  # a broken neighbour is not the subject
            complete = all(hook in owner for hook in device.REQUIRED)
            if complete and (owner.device, owner.arrays) == (self.device, self.arrays):
                return owner
        return None

    @property
    def slowness(self) -> str:
        """Why calls take long here, by its own word or that of the backend whose device it is on."""
        return self.slow or (self._owner.slow if self._owner else "")

    def call(self, hook: str, *arguments: Any) -> None:
        """Run one half-op on NumPy arrays, wherever the backend computes. For tests and checks.

        Arrays go to the device and back; what the op leaves untouched comes back as it was.
        """
        function = self.functions[hook]
        if self.device == "host":
            function(*(self.adapt(a) if _is_array(a) else a for a in arguments))
            return
        place = self.open_device()
        buffers = []
        for array in arguments:
            if not _is_array(array):
                buffers.append(array)
                continue
            buffer = place.view(place.empty(array.nbytes), 0, array.shape, array.dtype)
            place.from_host(buffer, array)
            buffers.append(buffer)
        function(
            *(self.adapt(b) if _is_array(a) else b for a, b in zip(arguments, buffers, strict=True))
        )
        place.synchronize()
        for array, buffer in zip(arguments, buffers, strict=True):
            if _is_array(array) and array.flags.writeable:
                place.to_host(array, buffer)


def _is_array(value: Any) -> bool:
    return hasattr(value, "dtype")


def load(name: str, ops: OpTable) -> Backend:
    """The backend of this name (or `reference`, or a path ending in .py), imported and checked.

    Raises PluginError where it is unknown, cannot be imported, or breaks the contract.
    """
    if name == "reference":
        return load_reference(ops)
    if name.endswith(".py"):
        return load_file(Path(name), ops)
    points = installed()
    if name not in points:
        raise PluginError(
            f"no backend is called '{name}'",
            slug="unknown-backend",
            nearest=nearest(name, {*points, "reference"}),
            installed=", ".join(sorted({*points, "reference"})),
            do="choose one of these, or give a file: ops.layernorm=./my_layernorm.py\n"
            "or pip install the package that has it (docs/plugins.md)",
        )
    point = only(points[name], BACKENDS)
    return check(import_plugin(point, "backend"), name, distribution_of(point), ops)


def load_file(path: Path, ops: OpTable) -> Backend:
    """A backend that is a file of its own. Its sha256 becomes part of the record."""
    path = path.expanduser().resolve()
    if not path.is_file():
        raise PluginError(
            f"there is no backend file {path.name}", slug="backend-file-missing", where=path
        )
    source = path.read_bytes()
    digest = hashlib.sha256(source).hexdigest()
    module_name = f"harness_file_{path.stem}_{digest[:8]}"
    spec = importlib.util.spec_from_file_location(module_name, path)
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[module_name] = module
    try:
        # The very bytes of the record: a .pyc would be reused for an edit of the same size and second.
        exec(compile(source, path, "exec"), vars(module))
    except (Exception, SystemExit) as error:
        del sys.modules[module_name]
        raise broken(f"the backend file {path.name}", str(path), error) from error
    return check(module, str(path), f"sha256 {digest[:16]}", ops)


def load_reference(ops: OpTable) -> Backend:
    """The float64 formulas as a backend: slow, and right."""
    functions = reference.Functions(ops)
    computes = {"fp32": "f64", "tf32": "f64", "bf16": "f64"}
    return Backend("reference", "host", "numpy", computes, functions, f"harness {__version__}")


def load_wrapper(name: str, ops: OpTable) -> Any:
    """A plugin of the hook wrap_op: an entry point of `harness.wrappers`, or a file."""
    if name.endswith(".py"):
        wrapper = load_file(Path(name), ops)
    else:
        points = installed(WRAPPERS)
        if name not in points:
            raise PluginError(
                f"no wrapper is called '{name}'",
                slug="unknown-wrapper",
                nearest=nearest(name, points),
                installed=", ".join(sorted(points)) or "none",
            )
        point = only(points[name], WRAPPERS)
        wrapper = check(import_plugin(point, "wrapper"), name, distribution_of(point), ops)
    if "wrap_op" not in wrapper:
        raise PluginError(
            f"wrapper '{name}' ({wrapper.source}) does not implement wrap_op",
            slug="not-a-wrapper",
            do="mark a function wrap_op(op, backend, call) with @hookimpl",
        )
    return wrapper.module


def configure(backend: Backend, given: Mapping[str, str]) -> None:
    """Hand a backend its own settings, those not given at their defaults; nothing where it has none.

    Raises ConfigError for a setting or a value that the backend does not list.
    """
    for name, value in given.items():
        if name not in backend.options:
            raise ConfigError(
                f"{backend.name}.{name}={value}: the backend has no such setting",
                slug="unknown-backend-option",
                nearest=nearest(name, backend.options),
                there_are=", ".join(backend.options) or "none",
            )
        if value not in backend.options[name]:
            raise ConfigError(
                f"{backend.name}.{name}={value} is unknown",
                slug="unknown-backend-option",
                nearest=nearest(value, backend.options[name]),
                there_are=", ".join(backend.options[name]),
            )
    if "configure" in backend:
        defaults = {name: values[0] for name, values in backend.options.items()}
        backend.functions["configure"]({**defaults, **given})


def check(module: ModuleType, name: str, source: str, ops: OpTable) -> Backend:
    """A module as a Backend, or a PluginError that says what in it breaks the contract.

    pluggy accepts implementations that leave arguments out, and drops marked objects that are not
    functions; neither passes here.
    """
    functions = {}
    for attribute, value in vars(module).items():
        if getattr(value, MARK, None) is None:
            continue
        check_function(attribute, value, name, source, ops)
        functions[attribute] = value
    manager = pluggy.PluginManager("harness")
    manager.add_hookspecs(device)
    for hook in functions:
        if hook not in device.HOOKS and not hasattr(manager.hook, hook):
            op = ops.op_of(hook)
            specs = ModuleType(op.name)
            vars(specs).update({half.name: half.spec for half in op.halves})
            manager.add_hookspecs(specs)
    try:
        manager.register(module, name)
        manager.check_pending()
    except pluggy.PluginValidationError as error:
        raise PluginError(
            f"backend '{name}' ({source}) is refused by pluggy", slug="plugin-refused", reason=error
        ) from error
    place, arrays = getattr(module, "device", "host"), getattr(module, "arrays", "numpy")
    if place == "host" and arrays not in device.HOST_ARRAYS and "adapt" not in functions:
        raise PluginError(
            f"backend '{name}' ({source}) asks for arrays of an unknown kind, '{arrays}'",
            slug="unknown-array-kind",
            the_host_has=", ".join(device.HOST_ARRAYS),
            do="choose one of these, or implement the hook adapt(buffer)",
        )
    computes = getattr(module, "computes", {"fp32": "f32"})
    return Backend(
        name,
        place,
        arrays,
        computes,
        functions,
        source,
        module,
        capturable=bool(getattr(module, "capturable", False)),
        slow=str(getattr(module, "slow", "")),
        options=getattr(module, "options", {}),
        variants=variants_of(module, name, source, ops),
    )


def require(backend: Backend, hook: str, chosen_by: str, ops: OpTable) -> Callable[..., Any]:
    """The function of a half-op, or an error that lists who has it."""
    if hook in backend:
        return backend.functions[hook]
    # The schema's keys are the core's ops; Hydra adds others with a plus.
    plus = "" if ops.op_of(hook).name in core_ops() else "+"
    raise OpNotImplemented(
        f"backend '{backend.name}' does not implement {hook} (chosen by {chosen_by})",
        slug="op-not-implemented",
        implemented_by=", ".join(who_implements(hook, ops)) or "none",
        choose_one=f"{plus}ops.{hook}=NAME",
        or_write_it=f"{_short(ops.op_of(hook).file)} says what it must do",
    )


def _short(file: str) -> str:
    """A file of the core as `harness/ops/layernorm.py`; a plugin's as it is."""
    path = Path(file)
    return path.relative_to(ROOT).as_posix() if path.is_relative_to(ROOT / "harness") else file


def who_implements(hook: str, ops: OpTable) -> list[str]:
    """The installed backends that have a half-op. Loads them all; for error messages only."""
    found = []
    for name in (*installed(), "reference"):
        try:
            if hook in load(name, ops):
                found.append(name)
        except PluginError:
            continue  # a broken neighbour is not this error's subject
    return sorted(found)
