"""Tokens for training and for validation: `load` reads a source, tokenizes it and cuts it in two.

The last validation_fraction of the stream is the validation (splits.py). One cut, and not one a
file: on CPython 3.11's standard library it gives the n-gram losses of cutting the tail off
every file to within 0.02 nats (3.149, 2.456, 1.870 against 3.148, 2.439, 1.850), whereas drawing
whole files moves the unigram alone between 3.08 and 3.30.
"""

import hashlib
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import numpy.typing as npt

from harness import tokenizers
from harness.data import splits, tokenizer_file
from harness.data.files import find_files
from harness.data.sources import check_source, read_text
from harness.data.token_files import HEADER_BYTES, read_token_files
from harness.errors import ConfigError, DataError
from harness.tokenizers import Tokenizer, check_token_ids
from harness.tokenizers.bpe_training import VOCABULARY

__all__ = ["Dataset", "check_token_ids", "load", "require"]

HASH_CHUNK_TOKENS = 1 << 20
AUTO = "auto"
VALIDATION_FILE = re.compile(r"_val(_\d+)?\.bin$")

Tokens = npt.NDArray[np.int32] | npt.NDArray[np.uint16]


@dataclass(frozen=True, eq=False)
class Dataset:
    """train, validation: 1-D token ids below vocab_size, int32 or uint16.
    description: one line for people.
    """

    train: Tokens
    validation: Tokens
    tokenizer: Tokenizer
    description: str

    @property
    def vocab_size(self) -> int:
        return self.tokenizer.vocab_size

    @cached_property
    def sha256(self) -> str:
        """sha256 of train then validation, each as its length (uint64) and its ids (int32), all
        little-endian: the same tokens cut elsewhere are another dataset.
        """
        digest = hashlib.sha256()
        for tokens in (self.train, self.validation):
            digest.update(len(tokens).to_bytes(8, "little"))
            for chunk in _chunks(tokens):
                digest.update(chunk.astype("<i4").tobytes())
        return digest.hexdigest()


def load(
    source: str,
    path: str | None,
    tokenizer: str | Tokenizer,
    validation_fraction: float,
    cache_dir: Path,
    bpe_vocab_size: int = VOCABULARY,
) -> Dataset:
    """Read a source and cut it in two.

    source, path: see sources.py.
    tokenizer: a name; a file that ends in .json; the tokenizer of a checkpoint; or, for tokens,
        `auto`: tokenizer.json beside their files.
    validation_fraction: 0 <= fraction < 1; not used where the path has *_val.bin of its own.
    cache_dir: where downloads are kept.
    bpe_vocab_size: of tokenizer bpe, which is learnt from the training part.
    """
    check_fraction(validation_fraction)
    check_source(source, path)
    if isinstance(tokenizer, str) and tokenizer.endswith(".json"):
        tokenizer = tokenizer_file.read_tokenizer_file(Path(os.path.expanduser(tokenizer)))
    if source == "tokens":
        assert path is not None
        return _load_tokens(path, tokenizer, validation_fraction)
    text = read_text(source, path, cache_dir)
    train, validation, tokenizer = splits.tail(text, tokenizer, validation_fraction, bpe_vocab_size)
    return _dataset(train, validation, tokenizer, text.description)


def check_fraction(validation_fraction: float, key: str = "data.validation_fraction") -> None:
    """Refuse what is no part of a whole. key: what the value is called in the error."""
    if not 0 <= validation_fraction < 1:
        raise ConfigError(
            f"{key}={validation_fraction} is not a fraction",
            slug="validation-fraction-out-of-range",
            expected="0 or more, and below 1",
            do=f"{key}=0.1",
        )


def require(
    tokens: npt.NDArray[np.integer], batch_size: int, T: int, name: str = "training"
) -> None:
    """Refuse fewer tokens than one batch of distinct sequences needs: batch_size * T + 1."""
    assert batch_size > 0 and T > 0, "sizes are positive"
    count, needed = len(tokens), batch_size * T + 1
    if count >= needed:
        return
    fits = []
    if (largest_T := (count - 1) // batch_size) >= 1:
        fits.append(f"T={largest_T:,} or less with B={batch_size:,}")
    if (largest_B := (count - 1) // T) >= 1:
        fits.append(f"B={largest_B:,} or less with T={T:,}")
    if not fits and count >= 2:
        fits.append("B=1 and T=1")
    raise DataError(
        f"too few tokens for one batch: {name}",
        slug="data-too-short",
        expected=f"{needed:,} tokens: B*T + 1 with B={batch_size:,} and T={T:,}",
        found=f"{count:,} tokens",
        fits=", or ".join(fits) or "nothing: B=1 and T=1 need 2 tokens",
        do="give it more text, or a smaller B or T" if fits else "give it more text",
    )


def _load_tokens(path: str, tokenizer: str | Tokenizer, validation_fraction: float) -> Dataset:
    files = find_files(path, suffix=".bin")
    if tokenizer == AUTO:
        tokenizer = tokenizer_of(files)
    elif isinstance(tokenizer, str):
        tokenizer = tokenizers.get(tokenizer)
    validation_files = [file for file in files if VALIDATION_FILE.search(file.name)]
    train_files = [file for file in files if file not in validation_files]
    if validation_files and train_files:
        train: Tokens = read_token_files(train_files)
        validation: Tokens = read_token_files(validation_files)
        of = f"tokens: {len(train_files):,} + {len(validation_files):,} validation files"
    else:
        train, validation = _cut(read_token_files(files), validation_fraction)
        of = f"tokens: {len(files):,} file" + "s" * (len(files) != 1)
    if not len(train) + len(validation):
        raise DataError(f"there are no tokens in {path}", slug="data-without-tokens")
    for part, where in ((train, "training"), (validation, "validation")):
        check_token_ids(part, tokenizer.vocab_size, where=f"{where} tokens of {path}")
    size = HEADER_BYTES * len(files) + 2 * (len(train) + len(validation))
    return _dataset(train, validation, tokenizer, f"{of}, {size:,} bytes")


def tokenizer_of(files: list[Path]) -> Tokenizer:
    """The tokenizer.json beside the files; GPT-2's where there is none, as beside llm.c's own.

    Raises DataError where the files lie in folders of different tokenizers.
    """
    known: dict[str, tuple[Path, Tokenizer]] = {}
    for folder in sorted({file.parent for file in files}):
        beside = folder / tokenizer_file.NAME
        found = tokenizers.get("gpt2")
        if beside.exists():
            found = tokenizer_file.read_tokenizer_file(beside)
        known.setdefault(found.sha256, (folder, found))
    if len(known) > 1:
        raise DataError(
            "these files of token ids were made with different tokenizers",
            slug="tokenizers-differ",
            found="\n".join(f"{found.name} in {folder}" for folder, found in known.values()),
            do="data.path=FOLDER of one of them",
        )
    ((_, tokenizer),) = known.values()
    return tokenizer


def _cut(tokens: Tokens, validation_fraction: float) -> tuple[Tokens, Tokens]:
    train_count = int(len(tokens) * (1 - validation_fraction))
    return tokens[:train_count], tokens[train_count:]


def _dataset(train: Tokens, validation: Tokens, tokenizer: Tokenizer, of: str) -> Dataset:
    description = (
        f"{of}; {len(train):,} training and {len(validation):,} validation tokens"
        f" ({tokenizer.name}, vocabulary {tokenizer.vocab_size:,})"
    )
    return Dataset(train, validation, tokenizer, description)


def _chunks(tokens: Tokens) -> Iterator[Tokens]:
    for start in range(0, len(tokens), HASH_CHUNK_TOKENS):
        yield tokens[start : start + HASH_CHUNK_TOKENS]
