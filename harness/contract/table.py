"""The ops there are: the core's, read from `harness/ops`, and those that plugins declare."""

import difflib
import importlib
import pkgutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import cache

from harness.contract.op import Half, Op, read_op
from harness.errors import ConfigError, PluginError


class OpTable(Mapping[str, Op]):
    """The ops of a run by name. `add` refuses a name, or a hook, that is taken.

    declared: ops that plugins declare, by name, as functions that load them. They are loaded when
        they are first asked for, so a broken one harms no run that does not name it.
    """

    def __init__(
        self, ops: Mapping[str, Op], declared: Mapping[str, Callable[[], Op]] | None = None
    ) -> None:
        self._ops = dict(ops)
        self._declared = dict(declared or {})
        self._by_hook = {hook: op for op in self._ops.values() for hook in op.hooks}

    def __getitem__(self, name: str) -> Op:
        if name not in self._ops and name in self._declared:
            self.add(self._declared[name](), source="its plugin")
        try:
            return self._ops[name]
        except KeyError:
            names = {*self._ops, *self._declared}
            raise ConfigError(
                f"no op is called '{name}'",
                slug="unknown-op",
                nearest=nearest(name, names),
                there_are=", ".join(sorted(names)),
            ) from None

    def __contains__(self, name: object) -> bool:
        return name in self._ops or name in self._declared

    def __iter__(self) -> Iterator[str]:
        return iter(self._ops)

    def __len__(self) -> int:
        return len(self._ops)

    def add(self, op: Op, source: str) -> None:
        """Add an op that a plugin declares. source: the plugin, for the message."""
        for taken in (op.name, *op.hooks):
            if taken in self._ops or taken in self._by_hook:
                raise PluginError(
                    f"the op '{op.name}' of {source} is refused: '{taken}' is taken",
                    slug="op-name-taken",
                    do="give the op another name",
                )
        self._ops[op.name] = op
        self._by_hook.update(dict.fromkeys(op.hooks, op))

    @property
    def hooks(self) -> tuple[str, ...]:
        return tuple(self._by_hook)

    def op_of(self, hook: str) -> Op:
        """The op that a hook belongs to. Raises ConfigError for a hook that no op has."""
        if hook not in self._by_hook:
            name = hook.removesuffix("_forward").removesuffix("_backward")
            if name in self._declared:
                _ = self[name]
        try:
            return self._by_hook[hook]
        except KeyError:
            raise ConfigError(
                f"no op has a half called '{hook}'",
                slug="unknown-half",
                nearest=nearest(hook, self.hooks),
            ) from None

    def half(self, hook: str) -> Half:
        return self.op_of(hook).half(hook)


@cache
def _core() -> dict[str, Op]:
    package = importlib.import_module("harness.ops")
    names = sorted(m.name for m in pkgutil.iter_modules(package.__path__))
    return {name: read_op(importlib.import_module(f"harness.ops.{name}")) for name in names}


def core_ops() -> OpTable:
    """A new table of the core's own ops."""
    return OpTable(_core())


def nearest(name: str, among: Iterable[str]) -> str | None:
    """The name most like a misspelt one, if any is."""
    found = difflib.get_close_matches(name, list(among), n=1)
    return found[0] if found else None
