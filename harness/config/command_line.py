"""Check a command line before Hydra acts on it: Hydra's own errors exit 1 with its own text.

What reaches the run is a key of the schema with a plain value. Nothing on the command line can name
code to call (`_target_`), read the environment (`oc.env`) or change how Hydra itself works.
"""

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cache
from typing import Any

from harness.config import bounds
from harness.config.config import RunConfig, conf_dir
from harness.contract.table import nearest
from harness.errors import ConfigError, HarnessError

GROUPS = ("model", "data", "ops", "adapter", "optimizer", "schedule", "experiment")
MULTIRUN = ("-m", "--multirun")
PLAIN_FLAGS = (*MULTIRUN, "-h", "--help", "--hydra-help", "--version", "--resolve")
VALUE_FLAGS = {
    "--cfg": ("job", "hydra", "all"),
    "--info": ("all", "config", "defaults", "defaults-tree", "plugins", "searchpath"),
}
SHORT_FLAGS = {"-c": "--cfg", "-i": "--info"}
FLAGS = (*PLAIN_FLAGS, *VALUE_FLAGS, *SHORT_FLAGS)
REFUSED_FLAGS = ("-cp", "--config-path", "-cn", "--config-name", "-cd", "--config-dir")
RESOLVER = re.compile(r"\$\{.*:", re.DOTALL)
"""${oc.env:HOME}, in any nesting; ${model.name} is another setting, and is allowed."""
OPEN_SECTIONS = ("ops", "precision_of")
"""Sections that `+` may add to: their further keys are ops that plugins declare."""


@dataclass(frozen=True)
class Application:
    """A command that takes `key=value`: what it is called, its schema, and where its values begin.

    primary: the file of conf/, which names `schema_name` first among its defaults.
    groups: the folders of conf/ that it chooses from. check: the bounds that the types do not say.
    """

    command: str
    primary: str
    schema_name: str
    schema: type
    groups: tuple[str, ...]
    flags: tuple[str, ...]
    check: Callable[[Any, list[str]], None]


TRAIN = Application(
    "python -m harness.train", "config", "schema", RunConfig, GROUPS, FLAGS, bounds.check_run
)


def register_schema(application: Application = TRAIN) -> None:
    """Make the application's dataclass the schema that its configs are merged onto."""
    from hydra.core.config_store import ConfigStore

    ConfigStore.instance().store(name=application.schema_name, node=application.schema)


def check(arguments: list[str]) -> list[RunConfig]:
    """The training runs that these arguments ask for, one unless it is a sweep, checked.

    Raises ConfigError for whatever Hydra or the schema would not take, with the nearest key.
    """
    flags, overrides = split(arguments)
    multirun = any(flag in flags for flag in MULTIRUN)
    return [compose(combination) for combination in _combinations(overrides, multirun)]


def split(arguments: list[str], application: Application = TRAIN) -> tuple[list[str], list[str]]:
    """The flags, each with its value behind an =, and the `key=value` ones.

    Hydra wants all of the second kind in one piece; here they may stand anywhere.
    """
    flags, overrides, rest = [], [], list(arguments)
    while rest:
        argument = rest.pop(0)
        if not argument.startswith("-"):
            overrides.append(argument)
            continue
        name, equals, value = argument.partition("=")
        name = SHORT_FLAGS.get(name, name)
        _check_flag(name, application)
        if name not in VALUE_FLAGS:
            flags.append(argument)
            continue
        options = VALUE_FLAGS[name]
        if not equals and rest and rest[0] in options:
            value = rest.pop(0)
        elif not equals and name == "--info":
            value = "all"
        if value not in options:
            raise ConfigError(f"{argument} needs one of " + ", ".join(options), slug="flag-value")
        flags.append(f"{name}={value}")
    _check_together(flags)
    return flags, overrides


def _check_together(flags: list[str]) -> None:
    acts = [flag for flag in flags if flag in MULTIRUN or flag.partition("=")[0] in VALUE_FLAGS]
    if len(acts) > 1:
        raise ConfigError(f"{' and '.join(acts)} exclude each other", slug="flags-disagree")
    shows = any(flag.startswith("--cfg") or flag in ("-h", "--help") for flag in flags)
    if "--resolve" in flags and not shows:
        raise ConfigError("--resolve belongs to --cfg job or --help", slug="flags-disagree")


def compose(overrides: list[str]) -> RunConfig:
    """The configuration of one training run. overrides: `key=value`, without sweeps."""
    run = compose_for(TRAIN, overrides)
    assert isinstance(run, RunConfig)
    return run


def compose_for(application: Application, overrides: list[str]) -> Any:
    """The configuration of an application, checked, as its schema's dataclass."""
    from hydra import compose as hydra_compose
    from hydra import initialize_config_dir
    from hydra.errors import HydraException
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    register_schema(application)
    with initialize_config_dir(config_dir=str(conf_dir()), version_base="1.3"):
        _check_keys(overrides, application)
        try:
            config = hydra_compose(application.primary, overrides=overrides)
            found = OmegaConf.to_object(config)
        except (HydraException, OmegaConfBaseException) as error:
            raise _misfit(error, overrides) from error
    application.check(found, overrides)
    bounds.check_backend(found, overrides, OmegaConf.select(config, "backend"))
    return found


def to_run(config: Any) -> RunConfig:
    """A composed Hydra configuration as the dataclass that the run takes."""
    from omegaconf import OmegaConf

    run = OmegaConf.to_object(config)
    assert isinstance(run, RunConfig)
    return run


def _misfit(error: Exception, overrides: list[str]) -> ConfigError:
    reason = _first_lines(error)
    if error.__cause__ is not None:
        # "Value 'abc' of type 'str' could not be converted to Integer" says what the first does not.
        reason += "\n" + _first_lines(error.__cause__, 1)
    named = [text for text in overrides if text in reason]
    return ConfigError(
        "the configuration does not fit its schema",
        slug="config-misfit",
        given=" ".join(named or overrides),
        reason=reason,
    )


def _check_flag(name: str, application: Application) -> None:
    if name in REFUSED_FLAGS:
        raise ConfigError(
            f"{name} is refused: a configuration comes from conf/ and from key=value",
            slug="flag-refused",
            do="put a file into conf/experiment/ and name it: experiment=NAME",
        )
    if name not in application.flags:
        raise ConfigError(
            f"no option is called {name}",
            slug="unknown-flag",
            nearest=nearest(name, application.flags),
            do="settings are written key=value; --help lists them",
        )


def _combinations(overrides: list[str], multirun: bool) -> Iterable[list[str]]:
    """Each run's overrides: the product of the sweeps, as Hydra's basic sweeper makes it.

    Of a key that is given twice the last counts, at the place of the first.
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
            reason=_first_lines(error),
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
                reason=_first_lines(error),
                do=_quoted(text),
            ) from error
    return parsed


def _quoted(text: str) -> str:
    key, equals, value = text.partition("=")
    if not equals:
        return "settings are written key=value; --help lists them"
    inner = value.strip("'\"").replace('"', '\\"')
    return f"in quotes, if it has blanks or other than plain letters: '{key}=\"{inner}\"'"


def _check_keys(overrides: list[str], application: Application) -> None:
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
    """lr is optimizer.lr, wherever else its letters are near."""
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
    from omegaconf import OmegaConf

    def walk(section: Any, prefix: str) -> Iterable[str]:
        for key in section:
            name = f"{prefix}{key}"
            yield name
            if OmegaConf.is_dict(section) and OmegaConf.is_dict(section._get_node(key)):
                yield from walk(section._get_node(key), f"{name}.")

    return frozenset(walk(OmegaConf.structured(application.schema), ""))


def _first_lines(error: BaseException, count: int = 3) -> str:
    lines = [line.strip() for line in str(error).strip().splitlines() if line.strip()]
    return "\n".join(lines[:count])
