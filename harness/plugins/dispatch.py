"""Bind each op to one backend, once, before the first step.

The configuration says `every_op`, an op, or one half; the more particular key wins:

    every_op: numpy      attention: numba      layernorm_backward: ./mine.py

A fused op may also be given `expand`. Nothing is guessed from what is installed, and a backend that
lacks what it was chosen for is an error.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from harness.contract import Op, OpTable
from harness.contract.table import nearest
from harness.errors import ConfigError
from harness.plugins.loading import Backend, configure, load, require

EVERY_OP = "every_op"
EXPAND = "expand"


@dataclass(frozen=True)
class Choice:
    """Which backend computes one half-op, and which configuration key said so."""

    hook: str
    backend: Backend
    chosen_by: str

    @property
    def where(self) -> str:
        return self.backend.where(self.hook)


class Dispatch:
    """The table op -> backend of one run. Backends are loaded when first chosen.

    choices: `every_op`, op names and half names -> backend name, file ending in .py, or None.
    options: backend -> settings of its own; those of a backend that no choice names are left alone.
    Raises ConfigError for a key that is no op or an option that is none, PluginError for an unknown or
    broken backend.
    """

    def __init__(
        self,
        ops: OpTable,
        choices: Mapping[str, str | None],
        options: Mapping[str, Mapping[str, str]] | None = None,
    ) -> None:
        self.ops = ops
        self._options = options or {}
        self._choices = {key: value for key, value in choices.items() if value is not None}
        self._backends: dict[str, Backend] = {}
        for key, value in self._choices.items():
            self._check_key(key, value)
        # Every backend that is named is loaded now: a misspelt one is an error even if unused.
        for value in self._choices.values():
            if value != EXPAND:
                self.backend(value)

    def _check_key(self, key: str, value: str) -> None:
        if key == EVERY_OP:
            return
        if key not in self.ops:
            try:
                self.ops.op_of(key)
            except ConfigError:
                names = (EVERY_OP, *self.ops, *self.ops.hooks)
                raise ConfigError(
                    f"ops.{key}={value}: no op and no half of an op is called '{key}'",
                    slug="unknown-op",
                    nearest=nearest(key, names),
                    ops=", ".join(sorted(self.ops)),
                ) from None
        if value == EXPAND and not (key in self.ops and self.ops[key].fused):
            raise ConfigError(f"ops.{key}=expand: {key} is not a fused op", slug="not-a-fused-op")

    def backend(self, name: str) -> Backend:
        if name not in self._backends:
            self._backends[name] = load(name, self.ops)
            configure(self._backends[name], self._options.get(name, {}))
        return self._backends[name]

    @property
    def backends(self) -> tuple[Backend, ...]:
        """The backends that the configuration names."""
        return tuple(self._backends.values())

    def key_for(self, hook: str) -> str:
        """The configuration key that decides a half-op: the half's own, the op's, or every_op."""
        op = self.ops.op_of(hook)
        for key in (hook, op.name, EVERY_OP):
            if key in self._choices and self._choices[key] != EXPAND:
                return key
        raise ConfigError(
            f"nothing chooses a backend for {hook}",
            slug="no-backend-chosen",
            do=f"set backend=NAME, or ops.{op.name}=NAME",
        )

    def choose(self, hook: str) -> Choice:
        """The backend of a half-op. Raises OpNotImplemented where it does not have it."""
        key = self.key_for(hook)
        backend = self.backend(self._choices[key])
        require(backend, hook, f"ops.{key}", self.ops)
        return Choice(hook, backend, f"ops.{key}")

    def expansion(self, op: Op) -> str | None:
        """Why a fused op is expanded into its parts, or None where it is called as one.

        It is called as one where a single backend is chosen for it and for every part, and has both
        halves of it, or where the configuration names the fused op itself; so overriding a part always
        takes effect. Raises ConfigError where both the fused op and a part are named, and differ.
        """
        if self._choices.get(op.name) == EXPAND and not any(h in self._choices for h in op.hooks):
            return f"ops.{op.name}=expand"
        named = any(key in self._choices for key in (op.name, *op.hooks))
        chosen = {self._choices[self.key_for(hook)] for hook in op.hooks}
        for part in op.parts:
            for hook in self.ops[part].hooks:
                key = self.key_for(hook)
                if chosen == {self._choices[key]} or (named and key == EVERY_OP):
                    continue
                if named:
                    raise self._conflict(op, hook)
                return f"ops.{key}={self._choices[key]} overrides a part"
        for hook in op.hooks:
            backend = self.backend(self._choices[self.key_for(hook)])
            if hook not in backend:
                if named:
                    self.choose(hook)  # raises: what was asked for by name is not replaced
                return f"{backend.name} does not implement {hook}"
        return None

    def _conflict(self, op: Op, hook: str) -> ConfigError:
        return ConfigError(
            f"ops.{op.name} and ops.{self.key_for(hook)} disagree: {op.name} replaces {hook}",
            slug="fusion-conflict",
            found=f"ops.{op.name} was chosen, and {hook} by ops.{self.key_for(hook)}",
            do=f"ops.{op.name}=expand, or the same backend for {', '.join(op.parts)}",
        )

    def table(self, hooks: tuple[str, ...]) -> list[dict[str, Any]]:
        """What really runs, for the record: hook, backend, source, file:line, chosen by."""
        rows = []
        for hook in hooks:
            choice = self.choose(hook)
            rows.append(
                {
                    "hook": hook,
                    "backend": choice.backend.name,
                    "source": choice.backend.source,
                    "where": choice.where,
                    "chosen_by": choice.chosen_by,
                }
            )
        return rows


def bind(
    choice: Choice, wrappers: tuple[Any, ...] = (), precision: str = "fp32"
) -> Callable[..., None]:
    """The plain function of a half-op at a precision, after each wrapper had its chance."""
    call: Callable[..., None] = choice.backend.function(choice.hook, precision)
    for wrapper in wrappers:
        call = wrapper.wrap_op(choice.hook, choice.backend.name, call) or call
    return call
