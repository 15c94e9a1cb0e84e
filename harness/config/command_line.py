"""Check a command line before Hydra acts on it: Hydra's own errors exit 1 with its own text.

What reaches the run is a key of the schema with a plain value. Nothing on the command line can name
code to call (`_target_`), read the environment (`oc.env`) or change how Hydra itself works.
"""

from functools import lru_cache
from typing import Any

from harness.config import bounds
from harness.config.application import MULTIRUN, SHORT_FLAGS, TRAIN, VALUE_FLAGS, Application
from harness.config.config import RunConfig, conf_dir
from harness.config.overrides import check_keys, combinations, first_lines
from harness.contract.table import nearest
from harness.errors import ConfigError

REFUSED_FLAGS = ("-cp", "--config-path", "-cn", "--config-name", "-cd", "--config-dir")


def register_schema(application: Application = TRAIN) -> None:
    """Make the application's dataclass the schema that its configs are merged onto."""
    from hydra.core.config_store import ConfigStore

    ConfigStore.instance().store(name=application.schema_name, node=application.schema)


def check(arguments: list[str]) -> list[RunConfig]:
    """The training runs that these arguments ask for, one unless it is a sweep, checked.

    Raises ConfigError for what Hydra or the schema would refuse, with the nearest key.
    """
    flags, overrides = split(arguments)
    multirun = any(flag in flags for flag in MULTIRUN)
    return [compose(combination) for combination in combinations(overrides, multirun)]


def split(arguments: list[str], application: Application = TRAIN) -> tuple[list[str], list[str]]:
    """The flags, each with its value behind an =, and the `key=value` arguments.

    Hydra takes the second kind in one piece only; here they may stand anywhere.
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
    from hydra.errors import HydraException
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    check_keys(overrides, application)
    try:
        config = _composed(application, tuple(overrides), str(conf_dir()))
        found = OmegaConf.to_object(config)
    except (HydraException, OmegaConfBaseException) as error:
        raise _misfit(error, overrides) from error
    application.check(found, overrides)
    bounds.check_backend(found, overrides, OmegaConf.select(config, "backend"))
    return found


@lru_cache(maxsize=256)
def _composed(application: Application, overrides: tuple[str, ...], folder: str) -> Any:
    """What Hydra makes of these, to be read only.

    It is kept, since Hydra takes a tenth of a second, and a process may ask for one run many times.
    """
    from hydra import compose, initialize_config_dir

    register_schema(application)
    with initialize_config_dir(config_dir=folder, version_base="1.3"):
        return compose(application.primary, overrides=list(overrides))


def to_run(config: Any) -> RunConfig:
    """A composed Hydra configuration as the dataclass that the run takes."""
    from omegaconf import OmegaConf

    run = OmegaConf.to_object(config)
    assert isinstance(run, RunConfig)
    return run


def _misfit(error: Exception, overrides: list[str]) -> ConfigError:
    reason = first_lines(error)
    if error.__cause__ is not None:
        # "Value 'abc' of type 'str' could not be converted to Integer" says what the first does not.
        reason += "\n" + first_lines(error.__cause__, 1)
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
