"""What `harness data prepare` is asked for: a source, and `key=value` for the rest."""

import re
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from harness.contract.table import nearest
from harness.data import splits
from harness.data.dataset import check_fraction
from harness.data.sources import check_source
from harness.data.token_files import MAX_COUNT
from harness.errors import ConfigError
from harness.tokenizers.bpe_training import VOCABULARY

NAMED_SOURCES = ("stdlib", "tinyshakespeare")
NOT_IN_NAMES = re.compile(r"[^A-Za-z0-9.-]+")


@dataclass(frozen=True)
class Settings:
    """The fields but the source are the keys of the command.

    source: stdlib, tinyshakespeare, or text for a path of one's own.
    path: of the text; of tinyshakespeare a copy that is there already.
    tokenizer: bytes, char, bpe, gpt2, or a tokenizer's file that ends in .json.
    vocab_size: of bpe, at most.
    split: tail or llmc (splits.py); llmc for tinyshakespeare in gpt2 unless it is given.
    validation_fraction: of split=tail.
    out: a folder of its own; data/NAME-TOKENIZER.
    name: how the files begin; the source's unless given.
    shard_tokens: of a file, at most.
    overwrite: replace what the folder holds.
    cache_dir: where downloads are kept.
    """

    source: str
    path: str | None = None
    tokenizer: str = "bytes"
    vocab_size: int = VOCABULARY
    split: str = ""
    validation_fraction: float = 0.1
    out: str = ""
    name: str = ""
    shard_tokens: int = MAX_COUNT
    overwrite: bool = False
    cache_dir: str = ".cache"


KEYS = {field.name: field.type for field in fields(Settings) if field.name != "source"}


def settings_of(source: str, overrides: list[str]) -> Settings:
    """The settings of a command line, complete and checked."""
    given = dict(_read(text) for text in overrides)
    if source in NAMED_SOURCES:
        settings = Settings(source, **given)
    elif "path" in given:
        raise ConfigError(
            f"two texts were named: {source} and path={given['path']}",
            slug="two-sources",
            do="one of them; path= is for a copy of tinyshakespeare",
        )
    else:
        settings = Settings("text", path=source, **given)
    check_source(settings.source, settings.path)
    settings = _completed(settings, source)
    _check(settings, given)
    return settings


def _completed(settings: Settings, source: str) -> Settings:
    as_llmc = settings.source == "tinyshakespeare" and settings.tokenizer == "gpt2"
    tokenizer = Path(settings.tokenizer).stem
    name = settings.name or NOT_IN_NAMES.sub("-", Path(source).stem).strip("-.") or "text"
    return replace(
        settings,
        split=settings.split or ("llmc" if as_llmc else "tail"),
        name=name,
        out=settings.out or f"data/{name}-{tokenizer}",
    )


def _check(settings: Settings, given: dict[str, Any]) -> None:
    if settings.split not in splits.NAMES:
        raise ConfigError(
            f"no split is called {settings.split!r}",
            slug="split-unknown",
            nearest=nearest(settings.split, splits.NAMES),
            there_are=", ".join(splits.NAMES),
        )
    check_fraction(settings.validation_fraction, "validation_fraction")
    if NOT_IN_NAMES.sub("", settings.name.replace("_", "")) != settings.name.replace("_", ""):
        raise _unreadable("name", settings.name, "letters, digits, '.', '_' and '-'")
    if not 1 <= settings.shard_tokens <= MAX_COUNT:
        raise _unreadable("shard_tokens", settings.shard_tokens, f"1 to {MAX_COUNT:,} (2 GiB)")
    for key, belongs_to, holds in (
        ("vocab_size", "tokenizer=bpe", settings.tokenizer == "bpe"),
        ("validation_fraction", "split=tail", settings.split == "tail"),
    ):
        if key in given and not holds:
            raise ConfigError(
                f"{key}={given[key]} would have no effect",
                slug="setting-without-effect",
                expected=f"{key} belongs to {belongs_to}",
                do=f"{belongs_to}, or leave {key} out",
            )
    if settings.split == "llmc" and settings.tokenizer in ("char", "bpe"):
        raise ConfigError(
            f"split=llmc does not go with tokenizer={settings.tokenizer}",
            slug="split-misfit",
            expected="a tokenizer that is there before the text is cut",
            do="tokenizer=gpt2, or a tokenizer's file; or split=tail",
        )


def _read(text: str) -> tuple[str, Any]:
    key, _, value = text.partition("=")
    if key not in KEYS:
        raise ConfigError(
            f"no setting is called '{key}'",
            slug="unknown-key",
            given=text,
            nearest=nearest(key.rpartition(".")[2], KEYS),
            there_are=", ".join(KEYS),
        )
    kind = KEYS[key]
    try:
        if kind is int:
            return key, int(value)
        if kind is float:
            return key, float(value)
    except ValueError:
        raise _unreadable(key, value, "a number") from None
    if kind is bool:
        if value not in ("true", "false"):
            raise _unreadable(key, value, "true or false")
        return key, value == "true"
    if not value or "\0" in value:
        raise _unreadable(key, value, "a word")
    return key, value


def _unreadable(key: str, value: object, expected: str) -> ConfigError:
    return ConfigError(
        f"{key}={value} is not what it takes", slug="setting-unreadable", expected=expected
    )
