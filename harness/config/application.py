"""The commands that take `key=value`: the flags, the groups and the schema of each."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from harness.config import bounds
from harness.config.config import RunConfig

GROUPS = ("model", "data", "ops", "adapter", "optimizer", "schedule", "experiment")
MULTIRUN = ("-m", "--multirun")
PLAIN_FLAGS = (*MULTIRUN, "-h", "--help", "--hydra-help", "--version", "--resolve")
VALUE_FLAGS = {
    "--cfg": ("job", "hydra", "all"),
    "--info": ("all", "config", "defaults", "defaults-tree", "plugins", "searchpath"),
}
SHORT_FLAGS = {"-c": "--cfg", "-i": "--info"}
FLAGS = (*PLAIN_FLAGS, *VALUE_FLAGS, *SHORT_FLAGS)


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
