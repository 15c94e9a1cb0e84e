"""What `python -m harness.generate` takes: its keys, their bounds, its prompts."""

import os
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from harness.config.application import Application
from harness.config.bounds import WORDS, Bounds
from harness.config.bounds import check as check_bounds
from harness.config.command_line import compose_for, split
from harness.config.config import CupyConfig, ops_config, precision_config
from harness.data.files import read_bytes
from harness.decoding.sampling import Sampling
from harness.errors import ConfigError, DataError
from harness.machine.threads import MAX_THREADS
from harness.tokenizers import utf8

INTERACTIVE = "-"
MAX_PROMPT_FILE = 64 * 2**20  # bytes; a prompt is text that somebody wrote
STRONGEST_PENALTY = 1000.0  # a logit of -1 becomes -1000, whose exp is 0: more changes nothing


@dataclass(kw_only=True)
class GenerateConfig:
    """Everything about a generation. Its values stand in conf/generate.yaml, with the reasons."""

    model_from: str
    adapter_from: str | None
    prompt: str | None
    prompts: list[str]
    prompt_file: str | None
    length: int
    temperature: float
    top_k: int | None
    top_p: float | None
    repetition_penalty: float
    stop: str
    seed: int
    samples: int
    batch_size: int
    tokenizer: str
    cache: bool
    out: str | None
    runs_dir: str
    backend: str
    precision: str
    transfer: str
    threads: int | None
    blas_kernel: str
    wrappers: list[str]
    cupy: CupyConfig
    ops: Any = field(default_factory=lambda: ops_config()())
    precision_of: Any = field(default_factory=lambda: precision_config()())

    @property
    def sampling(self) -> Sampling:
        return Sampling(self.temperature, self.top_k, self.top_p, self.repetition_penalty)

    @property
    def is_interactive(self) -> bool:
        return self.prompt == INTERACTIVE


BOUNDS = Bounds(
    at_least={
        **dict.fromkeys(("length", "top_k", "samples", "batch_size", "threads"), 1),
        **dict.fromkeys(("temperature", "seed"), 0),
        "repetition_penalty": 1 / STRONGEST_PENALTY,
    },
    more_than_0=("top_p",),
    below={"seed": 2**63},
    at_most={"top_p": 1, "repetition_penalty": STRONGEST_PENALTY, "threads": MAX_THREADS},
    words={
        "stop": ("end_of_text", "never"),
        **{name: WORDS[name] for name in ("transfer", "blas_kernel")},
    },
)
SOURCES_OF_PROMPTS = ("prompt", "prompts", "prompt_file")


def _check(config: GenerateConfig, overrides: list[str]) -> None:
    check_bounds(config, BOUNDS)


GENERATE = Application(
    command="python -m harness.generate",
    primary="generate",
    schema_name="generate_schema",
    schema=GenerateConfig,
    groups=("ops",),
    flags=("-h", "--help", "--version"),
    check=_check,
)


def read_arguments(arguments: list[str]) -> tuple[list[str], GenerateConfig]:
    """The flags, and the checked configuration. Raises ConfigError.

    A prompt is text, not a value of Hydra's grammar: `prompt=` takes the rest of its argument as it
    stands. One that is in quotes altogether is taken without them, as everywhere else.
    """
    flags, overrides = split(arguments, GENERATE)
    given = [text for text in overrides if text.startswith("prompt=")]
    config = compose_for(GENERATE, [text for text in overrides if text not in given])
    assert isinstance(config, GenerateConfig)
    if given:
        config.prompt = _unquoted(given[-1].removeprefix("prompt="))
    _check_one_source(config)
    return flags, config


def prompts_of(config: GenerateConfig) -> list[str]:
    """The prompts, at least one; an empty one where none was given."""
    if config.prompts:
        return list(config.prompts)
    if config.prompt_file is not None:
        return _lines(Path(os.path.expanduser(config.prompt_file)))
    return [config.prompt or ""]


def chosen(section: Any) -> dict[str, Any]:
    """The keys of an open section (ops, precision_of) that were set."""
    items = section if isinstance(section, dict) else vars(section)
    return {key: value for key, value in items.items() if value is not None}


def _unquoted(text: str) -> str:
    match = re.fullmatch(r"(['\"])((?:\\.|(?!\1)[^\\])*)\1", text, re.DOTALL)
    if match is None:
        return text
    return re.sub(rf"\\([{match[1]}\\])", r"\1", match[2])


def _check_one_source(config: GenerateConfig) -> None:
    given = [name for name in SOURCES_OF_PROMPTS if getattr(config, name) not in (None, [])]
    if len(given) > 1:
        raise ConfigError(
            f"{' and '.join(given)} exclude each other: each says what is continued",
            slug="prompts-disagree",
            do="choose one of them",
        )


def _lines(path: Path) -> list[str]:
    data = read_bytes(path, at_most=MAX_PROMPT_FILE + 1)
    if len(data) > MAX_PROMPT_FILE:
        raise DataError(
            f"this is no file of prompts: {path}",
            slug="prompt-file-too-large",
            expected=f"{MAX_PROMPT_FILE:,} bytes at most, one prompt a line",
        )
    lines = [line.rstrip("\r") for line in utf8.decode(data, where=str(path)).split("\n")]
    prompts = [line for line in lines if line]
    if not prompts:
        raise DataError(
            f"there is no prompt in the file: {path}",
            slug="prompt-file-empty",
            expected="one prompt a line; empty lines are left out",
        )
    return prompts
