"""`harness data inspect`: what a file of token ids holds, or which other file of llm.c's it is."""

import hashlib
import os
import struct
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from harness.data.dataset import tokenizer_of
from harness.data.files import read_bytes
from harness.data.token_files import HEADER_BYTES, MAGIC, read_token_file
from harness.data.tokenizer_file import NAME as TOKENIZER_NAME
from harness.errors import DataError
from harness.interchange.llmc import header as llmc_header
from harness.tokenizers import Tokenizer, get

FIRST = 32  # tokens that are shown

# What the numbers after the first say in llm.c's other files, where there are names.
SLOTS = {
    llmc_header.MODEL: ("version", "positions", "vocabulary", "layers", "heads", "channels"),
    llmc_header.DEBUG_STATE: ("version", "B", "T"),
    llmc_header.TOKENIZER: ("version", "vocabulary", "end of text"),
    llmc_header.MULTIPLE_CHOICE: ("version", "examples", "longest, bytes"),
    llmc_header.OPTIMIZER_STATE: ("version", "processes", "rank"),
    llmc_header.LLAMA3_TOKENS: ("version", "tokens"),
    llmc_header.LLAMA3_MODEL: ("version",),
}


def run_inspect(path: str | Path) -> int:
    """Print what the file is and what is in it. Returns the exit code."""
    for line in lines_of(Path(os.path.expanduser(path))):
        print(line)
    return 0


def lines_of(path: Path) -> Iterator[str]:
    """Raises DataError for what is no file of llm.c's."""
    header = read_bytes(path, at_most=HEADER_BYTES)
    magic = struct.unpack_from("<i", header)[0] if len(header) >= 4 else 0
    if magic in SLOTS and len(header) == HEADER_BYTES:
        yield from _other_file(path, magic, header)
        return
    if magic != MAGIC and (text := _as_text(header)):
        raise DataError(
            f"not a file of token ids, but text: {path}",
            slug="token-file-is-text",
            found=repr(text[:40]),
            do=f"harness data prepare {path} tokenizer=gpt2",
        )
    ids = read_token_file(path)
    yield f"{path}: token data in llm.c's format, version 1"
    yield f"tokens      {len(ids):,}"
    yield f"sha256      {_sha256(path)}"
    if not len(ids):
        return
    counts = np.bincount(ids)
    yield f"distinct    {np.count_nonzero(counts):,} ids"
    yield f"ids         {int(ids.min()):,} to {len(counts) - 1:,}"
    tokenizer = tokenizer_of([path])
    beside = f"({TOKENIZER_NAME} beside it)"
    if not (path.parent / TOKENIZER_NAME).exists():
        beside = f"(there is no {TOKENIZER_NAME} beside it)"
    yield f"tokenizer   {tokenizer.name}, vocabulary {tokenizer.vocab_size:,} {beside}"
    outside = int(counts[tokenizer.vocab_size :].sum())
    if outside:
        yield f"outside     {outside:,} tokens are not in this vocabulary: it did not make them"
    elif tokenizer.end_of_text is not None:
        ends = int(counts[tokenizer.end_of_text]) if tokenizer.end_of_text < len(counts) else 0
        yield f"texts       {ends:,} ends of text"
    first = [int(id) for id in ids[:FIRST]]
    yield f"first {len(first):<5} {' '.join(map(str, first))}"
    if not outside:
        yield f"text        {_decoded(tokenizer, first)}"


def _decoded(tokenizer: Tokenizer, ids: list[int]) -> str:
    try:
        return repr(tokenizer.decode(ids))
    except DataError as error:
        if tokenizer != get("gpt2"):
            raise
        return f"not shown: {error.headline}"


def _other_file(path: Path, magic: int, header: bytes) -> Iterator[str]:
    yield f"{path}: {llmc_header.KINDS_OF_FILE[magic]}, in llm.c's format"
    for slot, name in enumerate(SLOTS[magic], start=1):
        yield f"{name:<16}{struct.unpack_from('<i', header, 4 * slot)[0]:,}"


def _as_text(data: bytes) -> str | None:
    """data as text, where it is: UTF-8 (but for a last character cut off) without a zero byte."""
    text = data.decode("utf-8", errors="replace").rstrip("\N{REPLACEMENT CHARACTER}")
    if not text or "\0" in text or "\N{REPLACEMENT CHARACTER}" in text:
        return None
    return text


def _sha256(path: Path) -> str:
    return hashlib.sha256(read_bytes(path)).hexdigest()
