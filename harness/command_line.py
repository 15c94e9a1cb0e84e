"""Check a command line before Hydra acts on it: Hydra's own errors exit 1 with its own text.

What reaches the run is a key of the schema with a plain value. Nothing on the command line can name
code to call (`_target_`), read the environment (`oc.env`) or change how Hydra itself works.
"""

from collections.abc import Iterable
from typing import Any

from harness.config import RunConfig, conf_dir
from harness.contract.table import nearest
from harness.errors import ConfigError, HarnessError

GROUPS = ("model", "data", "ops", "optimizer", "schedule", "experiment")
MULTIRUN = ("-m", "--multirun")
FLAGS = (
    *MULTIRUN,
    "-h",
    "--help",
    "--hydra-help",
    "--version",
    "-c",
    "--cfg",
    "--resolve",
    "-i",
    "--info",
)
REFUSED_FLAGS = ("-cp", "--config-path", "-cn", "--config-name", "-cd", "--config-dir")
OPEN_SECTIONS = ("ops", "precision_of")
"""Sections that `+` may add to: their further keys are ops that plugins declare."""


def register_schema() -> None:
    """Make the dataclasses of harness.config the schema that every config is merged onto."""
    from hydra.core.config_store import ConfigStore

    ConfigStore.instance().store(name="schema", node=RunConfig)


def check(arguments: list[str]) -> list[RunConfig]:
    """The runs that these arguments ask for, one unless it is a sweep, checked.

    Raises ConfigError for whatever Hydra or the schema would not take, with the nearest key.
    """
    overrides = [a for a in arguments if not a.startswith("-")]
    for flag in (a for a in arguments if a.startswith("-")):
        _check_flag(flag)
    multirun = any(flag in arguments for flag in MULTIRUN)
    return [compose(combination) for combination in _combinations(overrides, multirun)]


def compose(overrides: list[str]) -> RunConfig:
    """The configuration of one run. overrides: `key=value`, without sweeps."""
    from hydra import compose as hydra_compose
    from hydra import initialize_config_dir
    from hydra.errors import HydraException
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    register_schema()
    with initialize_config_dir(config_dir=str(conf_dir()), version_base="1.3"):
        _check_keys(overrides)
        try:
            config = hydra_compose("config", overrides=overrides)
            run = to_run(config)
        except (HydraException, OmegaConfBaseException) as error:
            raise ConfigError(
                "the configuration does not fit its schema",
                slug="config-misfit",
                reason=_first_lines(error),
                given=" ".join(overrides),
            ) from error
    _check_values(run)
    _check_agreement(overrides, OmegaConf.select(config, "backend"), run)
    return run


def to_run(config: Any) -> RunConfig:
    """A composed Hydra configuration as the dataclass that the run takes."""
    from omegaconf import OmegaConf

    run = OmegaConf.to_object(config)
    assert isinstance(run, RunConfig)
    return run


def _check_flag(flag: str) -> None:
    name = flag.partition("=")[0]
    if name in REFUSED_FLAGS:
        raise ConfigError(
            f"{name} is refused: a configuration comes from conf/ and from key=value",
            slug="flag-refused",
            do="put a file into conf/experiment/ and name it: experiment=NAME",
        )
    if name not in FLAGS:
        raise ConfigError(
            f"no option is called {name}",
            slug="unknown-flag",
            nearest=nearest(name, FLAGS),
            do="settings are written key=value; --help lists them",
        )


def _combinations(overrides: list[str], multirun: bool) -> Iterable[list[str]]:
    """Each run's overrides: the product of the sweeps, as Hydra's basic sweeper makes it."""
    from itertools import product

    choices = []
    for text, override in zip(overrides, _parse(overrides), strict=True):
        if not override.is_sweep_override():
            choices.append([text])
        elif multirun:
            key = text.partition("=")[0]
            values = override.sweep_string_iterator()
            choices.append([f"{key}={value}" for value in values])
        else:
            raise ConfigError(
                f"{text} is a sweep over several values",
                slug="sweep-without-multirun",
                do=f"python -m harness.train -m {text}",
            )
    return [list(combination) for combination in product(*choices)]


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
                do="quote values with blanks or special characters: 'sample.prompt=\"a b\"'",
            ) from error
    return parsed


def _check_keys(overrides: list[str]) -> None:
    for text, override in zip(overrides, _parse(overrides), strict=True):
        key = override.key_or_group
        if key.partition(".")[0].partition("/")[0] == "hydra":
            raise ConfigError(
                f"{text}: Hydra's own settings are not to be set on the command line",
                slug="hydra-key-refused",
                effect="they can run code, and change where a run writes",
            )
        if "_target_" in text or "oc.env" in text:
            raise ConfigError(
                f"{text}: a configuration holds plain values",
                slug="config-code-refused",
                effect="_target_ and oc.env are never resolved",
            )
        if override.is_delete():
            raise ConfigError(f"{text}: nothing can be deleted from the schema", slug="key-refused")
        _check_key(text, key, added=override.is_add() or override.is_force_add())


def _check_key(text: str, key: str, added: bool) -> None:
    if key in GROUPS:
        _check_option(text, key)
        return
    if key in known_keys():
        return
    section, _, name = key.partition(".")
    if added and section in OPEN_SECTIONS and name:
        from harness.plugins import all_ops

        ops = all_ops()
        if name in ops:
            return
        try:
            ops.op_of(name)
            return
        except HarnessError:
            pass  # told below, with the nearest key
    names = {*known_keys(), *GROUPS}
    plugin_op = None
    if section in OPEN_SECTIONS and not added:
        plugin_op = f"an op that a plugin declares is reached with +{section}.{name}="
    raise ConfigError(
        f"no setting is called '{key}'",
        slug="unknown-key",
        given=text,
        nearest=nearest(key, names),
        effect="a + adds keys only under ops and precision_of" if added else None,
        note=plugin_op,
        do="python -m harness.train --help lists them all",
    )


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


def known_keys() -> set[str]:
    """Every key of the schema, with dots."""
    from omegaconf import OmegaConf

    def walk(section: Any, prefix: str) -> Iterable[str]:
        for key in section:
            name = f"{prefix}{key}"
            yield name
            if OmegaConf.is_dict(section) and OmegaConf.is_dict(section._get_node(key)):
                yield from walk(section._get_node(key), f"{name}.")

    return set(walk(OmegaConf.structured(RunConfig), ""))


def _check_values(run: RunConfig) -> None:
    """Bounds that the types do not say."""
    at_least_one = ("steps", "batch_size", "gradient_accumulation", "log_every", "keep_checkpoints")
    at_least_zero = ("seed", "validate_every", "checkpoint_every")
    bounds = [(name, getattr(run, name), 1) for name in at_least_one]
    bounds += [(name, getattr(run, name), 0) for name in at_least_zero]
    bounds += [("sequence_length", run.sequence_length, 1)]
    bounds += [("validation_batches", run.validation_batches, 1)]
    bounds += [("sample.length", run.sample.length, 0), ("sample.every", run.sample.every, 0)]
    bounds += [("sample.temperature", run.sample.temperature, 0)]
    bounds += [("sample.top_k", run.sample.top_k, 1), ("optimizer.lr", run.optimizer.lr, 0)]
    bounds += [
        ("schedule.warmup_steps", run.schedule.warmup_steps, 0),
        ("clip_norm", run.clip_norm, 0),
    ]
    for name, value, least in bounds:
        if value is not None and not value >= least:
            raise ConfigError(f"{name}={value} must be at least {least}", slug="value-too-small")
    for name, options in (
        ("loss_gradient", ("mean", "sum")),
        ("on_nonfinite", ("stop", "skip")),
        ("transfer", ("refuse", "allow")),
    ):
        value = getattr(run, name)
        if value not in options:
            raise ConfigError(
                f"{name}={value} is unknown",
                slug="unknown-value",
                nearest=nearest(value, options),
                there_are=", ".join(options),
            )


def _check_agreement(overrides: list[str], backend: str, run: RunConfig) -> None:
    """`backend=numba ops=fast_mix`: an ops file that does not follow `backend` contradicts it."""
    explicit = any(text.startswith("backend=") for text in overrides)
    every_op = run.ops["every_op"] if isinstance(run.ops, dict) else run.ops.every_op
    if explicit and every_op != backend:
        raise ConfigError(
            f"backend={backend} and the chosen ops disagree: ops.every_op={every_op}",
            slug="backend-and-ops-disagree",
            do=f"leave backend out, or add ops.every_op={backend}",
        )


def _first_lines(error: Exception, count: int = 3) -> str:
    lines = [line.strip() for line in str(error).strip().splitlines() if line.strip()]
    return "\n".join(lines[:count])
