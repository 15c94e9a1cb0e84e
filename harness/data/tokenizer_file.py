"""A tokenizer in a file: tokenizer.json beside the files of token ids that it made.

    {"format": "harness tokenizer", "version": 1,
     "name": "bpe", "vocab_size": 2000, "sha256": "...", "pieces": ["!", ..., "<|endoftext|>"]}

What follows the version is the tokenizer's to_dict(): `char` has characters in the place of pieces,
`bytes` and `gpt2` need neither. The sha256 is that of the vocabulary (harness/tokenizers), and is
computed anew when the file is read.
"""

import json
import os
from pathlib import Path
from typing import Any

from harness import tokenizers
from harness.data.files import open_file, read_bytes, write_atomically
from harness.errors import DataError
from harness.tokenizers import Tokenizer
from harness.tokenizers.bpe import MAX_VOCABULARY

NAME = "tokenizer.json"
FORMAT = "harness tokenizer"
VERSION = 1
MAX_BYTES = 4 << 20  # 65,536 pieces of GPT-2's kind need one


def tokenizer_bytes(tokenizer: Tokenizer) -> bytes:
    """The content of tokenizer's file; the same tokenizer gives the same bytes."""
    record = {"format": FORMAT, "version": VERSION, **tokenizer.to_dict()}
    return (json.dumps(record, ensure_ascii=False) + "\n").encode()


def write_tokenizer_file(path: Path | str, tokenizer: Tokenizer) -> None:
    """Write a tokenizer, whole or not at all."""
    write_atomically(Path(path), [tokenizer_bytes(tokenizer)])


def read_tokenizer_file(path: Path | str) -> Tokenizer:
    """The tokenizer of a file, checked against the sha256 that it states.

    Raises DataError for whatever is not a tokenizer's file, or not a whole one.
    """
    path = Path(path)
    if not os.path.exists(path):
        raise DataError(
            f"no such tokenizer file: {path}",
            slug="tokenizer-file-missing",
            do="data.tokenizer=FILE.json, or a name: bytes, char, bpe, gpt2",
        )
    with open_file(path) as (_, size):
        if size > MAX_BYTES:
            raise _invalid(path, f"at most {MAX_BYTES:,} bytes", f"{size:,} bytes")
    record = _record(path, read_bytes(path, at_most=MAX_BYTES))
    vocab_size = record.get("vocab_size")
    if type(vocab_size) is not int or not 0 < vocab_size <= MAX_VOCABULARY:
        raise _invalid(path, f"vocab_size 1 to {MAX_VOCABULARY:,}", f"{vocab_size!r:.40}")
    try:
        return tokenizers.from_dict(record)
    except DataError as error:
        found = "\n".join(filter(None, (error.headline, error.facts.get("found"))))
        raise _invalid(path, error.facts.get("expected"), found) from error


def _record(path: Path, data: bytes) -> dict[str, Any]:
    try:
        record = json.loads(data)
    except (ValueError, RecursionError) as error:  # UnicodeDecodeError is a ValueError
        raise _invalid(path, "JSON", str(error)) from None
    if not isinstance(record, dict) or record.get("format") != FORMAT:
        found = "another JSON file"
        if isinstance(record, dict) and "model" in record and "added_tokens" in record:
            found = "a tokenizer.json of Hugging Face's, which is another format"
        raise _invalid(path, f'"format": "{FORMAT}"', found)
    if record.get("version") != VERSION:
        found = f"version {record.get('version')!r:.40}"
        raise _invalid(path, f"version {VERSION}", found)
    return record


def _invalid(path: Path, expected: str | None, found: str) -> DataError:
    return DataError(
        f"not a whole tokenizer file: {path}",
        slug="tokenizer-file-invalid",
        expected=expected,
        found=found,
        do="make it again (harness data prepare), or copy it anew",
    )
