"""llm.c's tokenizer files: the bytes of each token, to decode with; `gpt2_tokenizer.bin`.

    slot 2 = number of tokens V, slot 3 = the id of end-of-text
    then for each id in order: one byte with the length, 1 to 255, and that many bytes

Version 1 has no slot 3: it is GPT-2's vocabulary, whose end-of-text is id 50,256. The pairs that were
merged are not in the file, so nothing can be encoded with it alone; where the pieces are those of a
tokenizer of the harness, `recognised` says which.
"""

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from harness.errors import CheckpointError, DataError
from harness.interchange.llmc import header as llmc_header
from harness.interchange.llmc.file import LlmcFile, write_llmc_file, wrong_size
from harness.interchange.llmc.header import HEADER_BYTES
from harness.tokenizers import Tokenizer, check_token_ids, vocabulary_sha256
from harness.tokenizers.bpe import END_OF_TEXT, BpeTokenizer
from harness.tokenizers.byte_alphabet import printable
from harness.tokenizers.byte_level import ByteTokenizer
from harness.tokenizers.gpt2 import Gpt2Tokenizer
from harness.tokenizers.tokenizer import TokenIds

MAX_PIECE_LENGTH = 255
MAX_TOKENS = 1 << 20  # eight times the largest vocabulary in use; in memory a token is 60 bytes
VERSION_1 = (50_257, 50_256)  # its only vocabulary and end-of-text


@dataclass(frozen=True)
class LlmcTokenizer:
    """A tokenizer that can only decode. pieces: the bytes of each id; end_of_text: an id."""

    pieces: tuple[bytes, ...]
    end_of_text: int
    version: int = 2
    name: ClassVar[str] = "llmc"

    @property
    def vocab_size(self) -> int:
        return len(self.pieces)

    @property
    def sha256(self) -> str:
        return vocabulary_sha256(self.name, self.pieces)

    def encode(self, text: str | bytes, where: str | None = None) -> npt.NDArray[np.int32]:
        raise DataError(
            "a tokenizer file of llm.c's can only decode",
            slug="tokenizer-decodes-only",
            where=where,
            found="the tokens' bytes, and not the pairs that were merged",
            do="encode with the tokenizer that the model was trained with: tokenizer=gpt2",
        )

    def decode(self, ids: TokenIds) -> str:
        tokens = check_token_ids(ids, self.vocab_size).ravel()
        return b"".join(self.pieces[i] for i in tokens).decode("utf-8", errors="replace")

    def to_dict(self) -> dict[str, Any]:
        return {"name": self.name, "vocab_size": self.vocab_size, "sha256": self.sha256}

    def recognised(self) -> Tokenizer | None:
        """The tokenizer of the harness with these pieces, which can encode; None if there is none."""
        for known in (Gpt2Tokenizer(), ByteTokenizer()):
            if vocabulary_sha256(known.name, self.pieces) == known.sha256:
                return known
        if self.pieces[-1] == END_OF_TEXT:
            with suppress(DataError):
                return BpeTokenizer.from_pieces([printable(piece) for piece in self.pieces])
        return None


def read_llmc_tokenizer(path: Path | str) -> LlmcTokenizer:
    """The tokenizer of a file; DataError unless the file holds just what its header promises."""
    try:
        with LlmcFile(Path(path), llmc_header.TOKENIZER, (1, 2), (2, 3)) as file:
            count, end_of_text = _checked_header(file)
            return LlmcTokenizer(_pieces(file, count), end_of_text, file.header.version)
    except CheckpointError as error:
        facts = {label.replace(" ", "_"): text for label, text in error.facts.items()}
        raise DataError(error.headline, slug="tokenizer-file-damaged", **facts) from error


def tokenizer_beside(model: Path, vocab_size: int) -> Tokenizer | None:
    """The tokenizer in the file that `harness export llmc` writes beside a model, if it is there.

    None also where it is of another size, or of no kind that can encode.
    """
    path = beside(model)
    if not path.is_file():
        return None
    found = read_llmc_tokenizer(path)
    return found.recognised() if found.vocab_size == vocab_size else None


def beside(model: Path) -> Path:
    """`tuned_tokenizer.bin` of `tuned.bin`."""
    return model.with_name(f"{model.stem}_tokenizer.bin")


def write_llmc_tokenizer(
    path: Path | str, pieces: Sequence[bytes], end_of_text: int | None, version: int = 2
) -> None:
    """Write the bytes of each id; whole or not at all.

    end_of_text: where a vocabulary has none, the file names the newline instead, or id 0 if there is
        no newline: llm.c begins to generate with that token.
    """
    if end_of_text is None:
        end_of_text = pieces.index(b"\n") if b"\n" in pieces else 0
    check_token_ids([end_of_text], len(pieces), where=str(path))
    assert version in (1, 2), version
    assert version == 2 or (len(pieces), end_of_text) == VERSION_1, "version 1 is GPT-2's only"
    for token, piece in enumerate(pieces):
        if not 1 <= len(piece) <= MAX_PIECE_LENGTH:
            raise DataError(
                f"llm.c's file can't hold token {token}",
                slug="llmc-piece-length",
                where=path,
                expected=f"1 to {MAX_PIECE_LENGTH} bytes",
                found=f"{len(piece):,} bytes",
                do="train a vocabulary with shorter tokens",
            )
    body = b"".join(bytes([len(piece)]) + piece for piece in pieces)
    slots = {0: llmc_header.TOKENIZER, 1: version, 2: len(pieces)}
    if version == 2:
        slots[3] = end_of_text
    write_llmc_file(Path(path), [llmc_header.encode(slots), body], HEADER_BYTES + len(body))


def pieces_of(tokenizer: Tokenizer) -> list[bytes]:
    """The bytes of each id of a tokenizer, in order of the ids."""
    own = getattr(tokenizer, "pieces", None)
    if own is not None:
        return list(own)
    if tokenizer.name == "bytes":
        return [bytes([byte]) for byte in range(256)]
    if tokenizer.name == "char":
        return [tokenizer.decode([i]).encode() for i in range(tokenizer.vocab_size)]
    raise DataError(
        f"tokenizer {tokenizer.name} does not say which bytes its tokens are",
        slug="tokenizer-without-pieces",
        do="give it an attribute pieces: the bytes of each id",
    )


def _checked_header(file: LlmcFile) -> tuple[int, int]:
    """The number of tokens and the id of end-of-text."""
    header, path = file.header, file.path
    count = header[2]
    if not 1 <= count <= MAX_TOKENS:
        raise llmc_header.damaged(path, f"1 to {MAX_TOKENS:,} tokens", f"{count:,}")
    least, most = HEADER_BYTES + 2 * count, HEADER_BYTES + (1 + MAX_PIECE_LENGTH) * count
    if not least <= file.size <= most:
        expected = f"{least:,} to {most:,} bytes, for {count:,} tokens"
        raise wrong_size(path, expected, file.size)
    if header.version == 1:
        if (count, header[3]) != (VERSION_1[0], 0):
            expected = f"{VERSION_1[0]:,} tokens in version 1, and 0 in slot 3"
            raise llmc_header.damaged(path, expected, f"{count:,} tokens, {header[3]}")
        return VERSION_1
    if not 0 <= header[3] < count:
        expected = f"end-of-text among the {count:,} tokens"
        raise llmc_header.damaged(path, expected, f"id {header[3]:,}")
    return count, header[3]


def _pieces(file: LlmcFile, count: int) -> tuple[bytes, ...]:
    body = file.read(HEADER_BYTES, file.size - HEADER_BYTES)
    pieces: list[bytes] = []
    position = 0
    while len(pieces) < count:
        if position >= len(body):
            raise _cut_short(file, len(pieces), count)
        length = body[position]
        if not length:
            expected = f"token {len(pieces):,} of 1 to {MAX_PIECE_LENGTH} bytes"
            raise llmc_header.damaged(file.path, expected, "0 bytes")
        piece = body[position + 1 : position + 1 + length]
        if len(piece) < length:
            raise _cut_short(file, len(pieces), count)
        pieces.append(piece)
        position += 1 + length
    if position < len(body):
        expected = f"{HEADER_BYTES + position:,} bytes, for {count:,} tokens"
        raise wrong_size(file.path, expected, file.size)
    return tuple(pieces)


def _cut_short(file: LlmcFile, found: int, count: int) -> CheckpointError:
    return wrong_size(file.path, f"{count:,} tokens, and token {found:,} whole", file.size)
