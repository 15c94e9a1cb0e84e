"""`harness data prepare`: a text becomes files of token ids, with their tokenizer beside them.

All files are written into a folder beside the one asked for, forced to the disk, and appear in one
rename: the folder is there with everything in it, or as it was.
"""

import hashlib
import os
import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from harness.data import splits
from harness.data.files import open_file
from harness.data.prepare_settings import Settings, settings_of
from harness.data.sources import read_text
from harness.data.token_files import MAX_ID, write_token_file
from harness.data.tokenizer_file import NAME as TOKENIZER_NAME
from harness.data.tokenizer_file import read_tokenizer_file, write_tokenizer_file
from harness.errors import ConfigError, DataError, ResourceError
from harness.files.staging import put_in_place, recover, stage_beside
from harness.tokenizers import Tokenizer, get


@dataclass(frozen=True)
class Prepared:
    """A text as tokens. of: where it came from, for people."""

    train: npt.NDArray[np.int32]
    validation: npt.NDArray[np.int32]
    tokenizer: Tokenizer
    of: str


def run_prepare(source: str, overrides: list[str]) -> int:
    """Write the token files of a text. Returns the exit code.

    source: stdlib, tinyshakespeare, or a file, folder or glob of text.
    overrides: `key=value`; the keys are the fields of prepare_settings.Settings.
    """
    settings = settings_of(source, overrides)
    _check_folder(settings)
    prepared = prepare(settings)
    tokenizer = prepared.tokenizer
    asked = ""
    if tokenizer.name == "bpe" and tokenizer.vocab_size < settings.vocab_size:
        asked = f" (of {settings.vocab_size:,} asked for: no other pair of the text repeats)"
    print(f"source     {prepared.of}")
    print(f"tokenizer  {tokenizer.name}, vocabulary {tokenizer.vocab_size:,}{asked}")
    print(f"split      {_split_in_words(settings)}")
    for line in write_prepared(prepared, settings):
        print(line)
    print(f"train      python -m harness.train data=tokens data.path={settings.out}")
    return 0


def prepare(settings: Settings) -> Prepared:
    """Read the text, cut it and encode it."""
    text = read_text(settings.source, settings.path, Path(settings.cache_dir))
    tokenizer: str | Tokenizer = settings.tokenizer
    if settings.tokenizer.endswith(".json"):
        tokenizer = read_tokenizer_file(Path(os.path.expanduser(settings.tokenizer)))
    if settings.split == "llmc":
        tokenizer = get(tokenizer) if isinstance(tokenizer, str) else tokenizer
        train, validation = splits.llmc(text, tokenizer)
    else:
        train, validation, tokenizer = splits.tail(
            text, tokenizer, settings.validation_fraction, settings.vocab_size
        )
    if tokenizer.vocab_size > MAX_ID + 1:
        raise ConfigError(
            f"token files cannot hold this vocabulary: {tokenizer.vocab_size:,} ids",
            slug="vocabulary-too-large",
            expected=f"at most {MAX_ID + 1:,}: an id is a uint16",
            do="tokenizer=bpe or tokenizer=bytes",
        )
    if not len(train):
        raise DataError(
            "the text leaves nothing to train on",
            slug="text-too-short",
            found=f"{len(validation):,} tokens, all of them validation",
            do="give it more text, or a smaller validation_fraction",
        )
    return Prepared(train, validation, tokenizer, text.description)


def write_prepared(prepared: Prepared, settings: Settings) -> list[str]:
    """Write the files, all or none. Returns a line for each, for people.

    A folder that holds the very same files already is left as it is; any other is replaced with
    overwrite=true alone.
    """
    out = _resolved(settings.out)
    try:
        with stage_beside(out) as folder:
            return _write_files(folder, out, prepared, settings)
    except OSError as error:
        raise _not_written(out, error) from error


def _write_files(folder: Path, out: Path, prepared: Prepared, settings: Settings) -> list[str]:
    """Write the files into folder, and put it in the place of out unless out holds the same."""
    wrote = _write_tokens(folder, f"{settings.name}_train", prepared.train, settings)
    if len(prepared.validation):
        wrote |= _write_tokens(folder, f"{settings.name}_val", prepared.validation, settings)
    write_tokenizer_file(folder / TOKENIZER_NAME, prepared.tokenizer)
    wrote[TOKENIZER_NAME] = f"vocabulary {prepared.tokenizer.vocab_size:,}"
    hashes = {name: _sha256(folder / name) for name in wrote}
    there = {file.name: _sha256(file) for file in _files(out)}
    word = "there is" if there == hashes else "wrote"
    lines = [
        f"{word:<9}  {settings.out}/{name}  {wrote[name]}  sha256 {sha256}"
        for name, sha256 in hashes.items()
    ]
    if there == hashes:
        return lines
    if there and not settings.overwrite:
        raise ConfigError(
            f"the folder has files already: {settings.out}",
            slug="prepared-files-differ",
            found=", ".join(sorted(there)),
            do="overwrite=true replaces them, or out=FOLDER",
        )
    put_in_place(folder, out)
    return lines


def _split_in_words(settings: Settings) -> str:
    if settings.split == "llmc":
        return (
            "llmc: end of text before each section, "
            f"the first {splits.LLMC_VALIDATION_TOKENS:,} tokens validate"
        )
    return f"tail: the last {settings.validation_fraction:g} validates"


def _write_tokens(
    folder: Path, stem: str, tokens: np.ndarray, settings: Settings
) -> dict[str, str]:
    """One file, or as many numbered ones as the tokens need; what is in each, by its name."""
    size = settings.shard_tokens
    parts = {f"{stem}.bin": tokens}
    if len(tokens) > size:
        starts = range(0, len(tokens), size)
        parts = {f"{stem}_{n:06d}.bin": tokens[s : s + size] for n, s in enumerate(starts)}
    for name, part in parts.items():
        write_token_file(folder / name, part)
    return {name: f"{len(part):,} tokens" for name, part in parts.items()}


# -- folders ------------------------------------------------------------------------------------


def _check_folder(settings: Settings) -> None:
    """Refuse a folder that is not this command's to replace, before any work is done."""
    out = _resolved(settings.out)
    if Path.cwd().is_relative_to(out):
        raise ConfigError(
            f"the files need a folder of their own: out={settings.out}",
            slug="prepared-folder-refused",
            do="out=NAME of a new folder",
        )
    try:
        recover(out)
    except OSError as error:
        raise _not_written(out, error) from error
    if os.path.exists(out) and not os.path.isdir(out):
        raise ConfigError(
            f"there is a file where a folder is to be: out={settings.out}",
            slug="prepared-folder-refused",
            do="out=NAME of a new folder",
        )
    try:
        names = os.listdir(out) if os.path.exists(out) else []
    except OSError as error:
        raise _not_written(out, error) from error
    ours = re.compile(rf"{re.escape(settings.name)}_(train|val)(_\d+)?\.bin|{TOKENIZER_NAME}")
    if strangers := [name for name in names if not ours.fullmatch(name)]:
        raise ConfigError(
            f"the folder has other files in it: out={settings.out}",
            slug="prepared-folder-refused",
            found=", ".join(sorted(strangers)[:5]),
            do="out=NAME of a new folder",
        )


def _resolved(out: str) -> Path:
    return Path(os.path.realpath(os.path.expanduser(out)))


def _files(folder: Path) -> list[Path]:
    return sorted(folder.iterdir()) if folder.exists() else []


def _sha256(path: Path) -> str:
    with open_file(path) as (file, _):
        return hashlib.file_digest(file, "sha256").hexdigest()


def _not_written(out: Path, error: OSError) -> ResourceError:
    return ResourceError(
        f"the files can't be written: {out}",
        slug="prepared-not-written",
        found=error,
        do="out=FOLDER where you may write and there is room",
    )
