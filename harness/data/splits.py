"""Cut a text in two and turn it into tokens: what is trained on, and what validates.

tail   the documents one after another, end_of_text between two where the tokenizer has one; the
       last validation_fraction of the tokens is the validation. With bpe the last
       validation_fraction of the characters is cut off first, then either part encoded: pieces are
       learnt from the first part, and no character of the second has a say in them.
llmc   as llm.c prepares tiny Shakespeare: a text is split on blank lines, each section has
       end_of_text before it, and the first 32,768 tokens are the validation.
"""

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from harness import tokenizers
from harness.data.sources import Document, Text
from harness.errors import ConfigError, DataError
from harness.tokenizers import Tokenizer, train_bpe, utf8

NAMES = ("tail", "llmc")
LLMC_VALIDATION_TOKENS = 32_768
BLANK_LINE = "\n\n"

Ids = npt.NDArray[np.int32]


def tail(
    text: Text, tokenizer: str | Tokenizer, validation_fraction: float, bpe_vocab_size: int
) -> tuple[Ids, Ids, Tokenizer]:
    """Training tokens, validation tokens, and the tokenizer, made from the text if it is a name."""
    if tokenizer == "bpe" or (not isinstance(tokenizer, str) and tokenizer.name == "bpe"):
        first, last = _cut_characters(text.documents, validation_fraction)
        if isinstance(tokenizer, str):
            tokenizer = train_bpe((document.data for document in first), bpe_vocab_size)
        return _joined(first, tokenizer), _joined(last, tokenizer), tokenizer
    if tokenizer == "char":
        tokenizer = tokenizers.get("char", "".join(_characters(d) for d in text.documents))
    elif isinstance(tokenizer, str):
        tokenizer = tokenizers.get(tokenizer)
    tokens = _joined(text.documents, tokenizer)
    count = int(len(tokens) * (1 - validation_fraction))
    return tokens[:count], tokens[count:], tokenizer


def llmc(text: Text, tokenizer: Tokenizer) -> tuple[Ids, Ids]:
    """Training tokens and validation tokens, in llm.c's order: validation is the beginning."""
    end_of_text = tokenizer.end_of_text
    if end_of_text is None:
        raise ConfigError(
            f"split=llmc needs an end of text, and tokenizer {tokenizer.name} has none",
            slug="split-needs-end-of-text",
            do="tokenizer=gpt2, or split=tail",
        )
    mark = np.array([end_of_text], dtype=np.int32)
    pieces: list[Ids] = []
    for document in text.documents:
        for section in _sections(_characters(document)):
            pieces += [mark, tokenizer.encode(section, where=document.name)]
    tokens = np.concatenate(pieces)
    if len(tokens) <= LLMC_VALIDATION_TOKENS:
        raise DataError(
            "too few tokens for split=llmc",
            slug="split-leaves-nothing",
            expected=f"more than the {LLMC_VALIDATION_TOKENS:,} that validate",
            found=f"{len(tokens):,} tokens",
            do="split=tail",
        )
    return tokens[LLMC_VALIDATION_TOKENS:], tokens[:LLMC_VALIDATION_TOKENS]


def _sections(text: str) -> Iterator[str]:
    """The text between blank lines; each section keeps the blank line after it."""
    sections = text.split(BLANK_LINE)
    yield from (section + BLANK_LINE for section in sections[:-1])
    yield sections[-1]


def _joined(documents: list[Document], tokenizer: Tokenizer) -> Ids:
    """The documents one after another, end_of_text between two where the tokenizer has one."""
    pieces: list[Ids] = []
    for document in documents:
        if pieces and tokenizer.end_of_text is not None:
            pieces.append(np.array([tokenizer.end_of_text], dtype=np.int32))
        pieces.append(tokenizer.encode(document.data, where=document.name))
    return np.concatenate(pieces) if pieces else np.empty(0, dtype=np.int32)


def _cut_characters(
    documents: list[Document], validation_fraction: float
) -> tuple[list[Document], list[Document]]:
    """The documents before the cut and after it; the one that it falls into is in both, in part."""
    texts = [_characters(document) for document in documents]
    left = int(sum(map(len, texts)) * (1 - validation_fraction))
    first, last = [], []
    for document, text in zip(documents, texts, strict=True):
        before, after = text[:left], text[left:]
        left -= len(before)
        if before:
            first.append(replace(document, data=before.encode()))
        if after:
            last.append(replace(document, data=after.encode()))
    return first, last


def _characters(document: Document) -> str:
    return utf8.decode(document.data, document.name)
