"""Turn text into token ids and back: `get(name)` for a run, `from_dict(record)` for a checkpoint.

    bytes   byte_level.py   V = 256       any bytes, nothing to download
    char    char.py         V = distinct  the characters of one text, sorted by code point
    bpe     bpe.py          V = 2,000     byte pairs learnt from one text, in GPT-2's manner
    gpt2    gpt2.py         V = 50,257    OpenAI's byte pairs, through tiktoken
    numbers numbers.py      V = any       ids written in decimal; of the counting data, not for text

What a tokenizer can do is written once, in tokenizer.py.
"""

import difflib
import reprlib

from harness.errors import ConfigError, DataError
from harness.tokenizers.bpe import BpeTokenizer
from harness.tokenizers.bpe_training import VOCABULARY, train_bpe
from harness.tokenizers.byte_level import ByteTokenizer
from harness.tokenizers.char import CharTokenizer
from harness.tokenizers.gpt2 import Gpt2Tokenizer
from harness.tokenizers.numbers import NumberTokenizer
from harness.tokenizers.token_ids import check_token_ids
from harness.tokenizers.tokenizer import Tokenizer, vocabulary_sha256

__all__ = [
    "NAMES",
    "BpeTokenizer",
    "NumberTokenizer",
    "Tokenizer",
    "check_token_ids",
    "from_dict",
    "get",
    "train_bpe",
    "vocabulary_sha256",
]

NAMES = ("bytes", "char", "bpe", "gpt2")
MAX_NUMBERS_VOCABULARY = 2**24
"""A record may ask for so many: its sha256 is made of all of them."""


def get(name: str, text: str | bytes | None = None, vocab_size: int = VOCABULARY) -> Tokenizer:
    """The tokenizer of that name.

    text: what `char` and `bpe` take their vocabulary from; the others need none.
    vocab_size: of bpe, at most.
    """
    if name == "bytes":
        return ByteTokenizer()
    if name == "gpt2":
        return Gpt2Tokenizer()
    if name in ("char", "bpe"):
        if text is None:
            raise ConfigError(
                f"tokenizer {name} needs a text to take its vocabulary from",
                slug="tokenizer-without-text",
                found="token ids, and no text",
                do="choose the tokenizer that made the ids: data.tokenizer=FILE.json, gpt2 or bytes",
            )
        return CharTokenizer.from_text(text) if name == "char" else train_bpe([text], vocab_size)
    near = difflib.get_close_matches(str(name), NAMES, n=1)
    raise ConfigError(
        f"no tokenizer is called {name!r}",
        slug="tokenizer-unknown",
        there_is=", ".join(NAMES) + ", or a file that ends in .json",
        do=f"data.tokenizer={near[0]}" if near else "data.tokenizer=NAME",
    )


def from_dict(record: object) -> Tokenizer:
    """The tokenizer that `to_dict` described, checked against the sha256 in the record."""
    if not isinstance(record, dict) or record.get("name") not in (*NAMES, "numbers"):
        raise _invalid(record, "no known name in it")
    tokenizer: Tokenizer
    if record["name"] == "char":
        characters = record.get("characters")
        if not isinstance(characters, str):
            raise _invalid(record, "no characters in it")
        tokenizer = CharTokenizer.from_text(characters)
    elif record["name"] == "bpe":
        tokenizer = BpeTokenizer.from_pieces(record.get("pieces"))
    elif record["name"] == "numbers":
        vocab_size = record.get("vocab_size")
        if type(vocab_size) is not int or not 0 < vocab_size <= MAX_NUMBERS_VOCABULARY:
            raise _invalid(record, "no size of a vocabulary in it")
        tokenizer = NumberTokenizer(vocab_size)
    else:
        tokenizer = get(record["name"])
    for key, found in tokenizer.to_dict().items():
        if record.get(key) != found:
            raise _invalid(
                record,
                f"{key} should be {reprlib.repr(found)}, not {reprlib.repr(record.get(key))}",
            )
    return tokenizer


def _invalid(record: object, why: str) -> DataError:
    return DataError(
        f"a tokenizer's record is damaged: {why}",
        slug="tokenizer-record-invalid",
        found=reprlib.repr(record),
        do="take the record from a whole checkpoint",
    )
