"""The command line of `harness verify`: its own keys, and those of a run that say who computes."""

import os
from pathlib import Path

from harness.config import command_line
from harness.config.config import RunConfig
from harness.errors import ConfigError

WHO_COMPUTES = (
    *("backend", "ops", "ops.*", "precision", "precision_of.*", "transfer", "threads", "wrappers"),
)
"""The keys of a run that mean something here; the model and the state say the rest."""


def taken(
    overrides: list[str], least: dict[str, int], texts: tuple[str, ...] = ()
) -> tuple[dict[str, int], dict[str, str], list[str]]:
    """Verify's own whole numbers and texts, and the overrides that are left.

    least: key -> its least value. Of a key that is given twice the last counts.
    """
    numbers: dict[str, int] = {}
    given: dict[str, str] = {}
    rest = []
    for override in overrides:
        key, equals, value = override.partition("=")
        if not equals or key not in (*least, *texts):
            rest.append(override)
        elif key in texts:
            given[key] = value
        else:
            numbers[key] = _number(key, value, least[key])
    return numbers, given, rest


def _number(key: str, text: str, least: int) -> int:
    if not (text.isascii() and text.isdigit() and len(text) <= 18) or int(text) < least:
        raise ConfigError(
            f"{key}={text} is not a whole number of {least} or more", slug="verify-number"
        )
    return int(text)


def composed(overrides: list[str], allowed: tuple[str, ...], instead: str) -> RunConfig:
    """The run of these overrides, checked as for training; refuses keys that are not allowed.

    allowed: keys, and `section.*` for all of a section. instead: what decides the others.
    """
    (run,) = command_line.check(overrides)
    for override in overrides:
        key = override.partition("=")[0].lstrip("+")
        if key not in allowed and f"{key.partition('.')[0]}.*" not in allowed:
            raise ConfigError(
                f"{override}: verify does not take {key}",
                slug="verify-key",
                effect=f"it would change nothing: {instead}",
                there_are=", ".join(allowed),
            )
    return run


def report_path(text: str | None) -> Path | None:
    """Where the report goes. It is refused before anything is computed, not after."""
    if text is None:
        return None
    path = Path(os.path.expanduser(text))
    if os.path.isdir(path) or not os.path.isdir(path.parent):
        raise ConfigError(
            f"report={text} cannot be written",
            slug="verify-report-place",
            found="a folder" if os.path.isdir(path) else f"no folder {path.parent}",
            do="report=FILE.json in a folder that is there",
        )
    return path
