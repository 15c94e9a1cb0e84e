"""Turn text into token ids and back: `get(name)` for a run, `from_dict(record)` for a checkpoint.

    bytes   byte_level.py   V = 256       any bytes, nothing to download
    char    char.py         V = distinct  the characters of one text, sorted by code point
    gpt2    gpt2.py         V = 50,257    OpenAI's byte pairs, through tiktoken

What a tokenizer can do is written once, in tokenizer.py.
"""

import difflib
import reprlib

from harness.errors import ConfigError, DataError
from harness.tokenizers.byte_level import ByteTokenizer
from harness.tokenizers.char import CharTokenizer
from harness.tokenizers.gpt2 import Gpt2Tokenizer
from harness.tokenizers.token_ids import check_token_ids
from harness.tokenizers.tokenizer import Tokenizer, vocabulary_sha256

__all__ = ["NAMES", "Tokenizer", "check_token_ids", "from_dict", "get", "vocabulary_sha256"]

NAMES = ("bytes", "char", "gpt2")


def get(name: str, text: str | bytes | None = None) -> Tokenizer:
    """The tokenizer of that name.

    text: what `char` takes its vocabulary from; the others need none.
    """
    if name == "bytes":
        return ByteTokenizer()
    if name == "gpt2":
        return Gpt2Tokenizer()
    if name == "char":
        if text is None:
            raise ConfigError(
                "tokenizer char needs a text to take its vocabulary from",
                slug="tokenizer-without-text",
                found="token ids, and no text",
                do="choose the tokenizer that made the ids: data.tokenizer=gpt2 or =bytes",
            )
        return CharTokenizer.from_text(text)
    near = difflib.get_close_matches(str(name), NAMES, n=1)
    raise ConfigError(
        f"no tokenizer is called {name!r}",
        slug="tokenizer-unknown",
        there_is=", ".join(NAMES),
        do=f"data.tokenizer={near[0]}" if near else "data.tokenizer=NAME",
    )


def from_dict(record: object) -> Tokenizer:
    """The tokenizer that `to_dict` described, checked against the sha256 in the record."""
    if not isinstance(record, dict) or record.get("name") not in NAMES:
        raise _invalid(record, "no known name in it")
    tokenizer: Tokenizer
    if record["name"] == "char":
        characters = record.get("characters")
        if not isinstance(characters, str):
            raise _invalid(record, "no characters in it")
        tokenizer = CharTokenizer.from_text(characters)
    else:
        tokenizer = get(record["name"])
    for key, found in tokenizer.to_dict().items():
        if record.get(key) != found:
            raise _invalid(
                record, f"{key} should be {found!r}, not {reprlib.repr(record.get(key))}"
            )
    return tokenizer


def _invalid(record: object, why: str) -> DataError:
    return DataError(
        f"a tokenizer's record is damaged: {why}",
        slug="tokenizer-record-invalid",
        found=reprlib.repr(record),
        do="take the record from a whole checkpoint",
    )
