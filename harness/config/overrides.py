"""Read the `key=value` arguments as Hydra would, and refuse those that it must not see."""

import re
from collections.abc import Iterable, Iterator
from dataclasses import MISSING, fields, is_dataclass
from functools import cache
from typing import Any

from harness.config.application import TRAIN, Application
from harness.config.config import conf_dir
from harness.contract.table import nearest
from harness.errors import ConfigError, HarnessError

RESOLVER = re.compile(r"\$\{.*:", re.DOTALL)
"""${oc.env:HOME}, in any nesting; ${model.name} is another setting, and is allowed."""
OPEN_SECTIONS = ("ops", "precision_of")
"""Sections that `+` may add to: their further keys are ops that plugins declare."""


def combinations(overrides: list[str], multirun: bool) -> Iterable[list[str]]:
    """Each run's overrides: the product of the sweeps, as Hydra's basic sweeper makes it.

    Where a key is given twice, the last value counts, at the place of the first.
    """
    from itertools import product

    choices: dict[str, list[str]] = {}
    for text, override in zip(overrides, _parse(overrides), strict=True):
        key = text.partition("=")[0]
        if not override.is_sweep_override():
            choices[key] = [text]
        elif multirun:
            choices[key] = [f"{key}={value}" for value in _swept(override)]
        else:
            key, _, values = text.partition("=")
            raise _sweep(
                text, f"{TRAIN.command} -m {text}, a run of each; a list is {key}=[{values}]"
            )
    return [list(combination) for combination in product(*choices.values())]


def _sweep(text: str, remedy: str) -> ConfigError:
    return ConfigError(
        f"{text} is a sweep over several values", slug="sweep-without-multirun", do=remedy
    )


def _swept(override: Any) -> list[str]:
    from hydra.errors import HydraException

    try:
        return list(override.sweep_string_iterator())
    except HydraException as error:
        raise ConfigError(
            f"{override.input_line} cannot be swept over",
            slug="sweep-without-end",
            reason=first_lines(error),
            do=f"list the values: {override.key_or_group}=a,b or a range: range(1,4)",
        ) from error


def _parse(overrides: list[str]) -> list[Any]:
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import HydraException

    parser = OverridesParser.create()
    parsed = []
    for text in overrides:
        try:
            parsed.append(parser.parse_override(text))
        except HydraException as error:
            raise ConfigError(
                f"'{text}' is not of the form key=value",
                slug="override-unreadable",
                reason=first_lines(error),
                do=_quoted(text),
            ) from error
    return parsed


def _quoted(text: str) -> str:
    key, equals, value = text.partition("=")
    if not equals:
        return "settings are written key=value; --help lists them"
    inner = value.strip("'\"").replace('"', '\\"')
    return f"in quotes, if it has blanks or other than plain letters: '{key}=\"{inner}\"'"


def check_keys(overrides: list[str], application: Application) -> None:
    for text, override in zip(overrides, _parse(overrides), strict=True):
        key = override.key_or_group
        if key.partition(".")[0].partition("/")[0] == "hydra":
            raise ConfigError(
                f"{text}: Hydra's own settings are not to be set on the command line",
                slug="hydra-key-refused",
                effect="they can run code, and change where a run writes",
            )
        if "_target_" in text or RESOLVER.search(text):
            raise ConfigError(
                f"{text}: a configuration holds plain values",
                slug="config-code-refused",
                effect="_target_, oc.env and other resolvers are never followed",
            )
        if override.is_delete():
            raise ConfigError(f"{text}: nothing can be deleted from the schema", slug="key-refused")
        added = override.is_add() or override.is_force_add()
        _check_key(text, key, added, application)
        if override.is_sweep_override():
            raise _sweep(text, "give one value; a list is written in brackets: [a,b]")


def _check_key(text: str, key: str, added: bool, application: Application) -> None:
    if key in application.groups:
        _check_option(text, key)
        return
    if key in known_keys(application):
        return
    section, _, name = key.partition(".")
    if added and section in OPEN_SECTIONS and name:
        from harness.plugins.loading import all_ops

        ops = all_ops()
        if name in ops:
            return
        try:
            ops.op_of(name)
            return
        except HarnessError:
            pass  # told below, with the nearest key
    names = {*known_keys(application), *application.groups}
    plugin_op = None
    if section in OPEN_SECTIONS and not added:
        plugin_op = f"an op that a plugin declares is reached with +{section}.{name}="
    raise ConfigError(
        f"no setting is called '{key}'",
        slug="unknown-key",
        given=text,
        nearest=_nearest_key(key, names),
        effect="a + adds keys only under ops and precision_of" if added else None,
        note=plugin_op,
        do=f"{application.command} --help lists them all",
    )


def _nearest_key(key: str, names: Iterable[str]) -> str | None:
    """The nearest keys; lr is optimizer.lr, whatever other key is spelt more like it."""
    names = sorted(names)
    same = [name for name in names if name.rpartition(".")[2] == key.rpartition(".")[2]]
    return ", ".join(same) or nearest(key, names)


def _check_option(text: str, group: str) -> None:
    chosen = text.partition("=")[2].strip("'\"")
    options = sorted(path.stem for path in (conf_dir() / group).glob("*.yaml"))
    if chosen in options or (group == "experiment" and chosen == "null"):
        return
    hint = None
    if group == "data":
        hint = f"for text of your own: data=text data.path={chosen}"
    raise ConfigError(
        f"{group} has no option '{chosen}'",
        slug="unknown-option",
        nearest=nearest(chosen, options),
        there_are=", ".join(options),
        do=hint,
    )


@cache
def known_keys(application: Application = TRAIN) -> frozenset[str]:
    """Every key of the schema, with dots."""
    return frozenset(_keys(application.schema))


def _keys(schema: Any, prefix: str = "") -> Iterator[str]:
    for setting in fields(schema):
        yield f"{prefix}{setting.name}"
        made = setting.default_factory
        section = setting.type if made is MISSING else type(made())
        if is_dataclass(section):
            yield from _keys(section, f"{prefix}{setting.name}.")


def first_lines(error: BaseException, count: int = 3) -> str:
    lines = [line.strip() for line in str(error).strip().splitlines() if line.strip()]
    return "\n".join(lines[:count])
