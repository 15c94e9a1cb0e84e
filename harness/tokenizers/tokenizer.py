"""Say what every tokenizer can do."""

import hashlib
import struct
from collections.abc import Iterable, Sequence
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

TokenIds = Sequence[int] | npt.NDArray[np.integer]


class Tokenizer(Protocol):
    """Text to token ids 0 .. vocab_size - 1, and back."""

    @property
    def name(self) -> str: ...

    @property
    def vocab_size(self) -> int: ...

    @property
    def end_of_text(self) -> int | None:
        """The id that stands between two documents, if there is one."""

    @property
    def sha256(self) -> str:
        """The vocabulary in 64 hexadecimal digits: see vocabulary_sha256."""

    def encode(self, text: str | bytes, where: str | None = None) -> npt.NDArray[np.int32]:
        """The ids of text. where: what the text is called in an error, such as its file."""

    def decode(self, ids: TokenIds) -> str:
        """The text of ids, U+FFFD for what is not UTF-8. An id out of range is a DataError."""

    def to_dict(self) -> dict[str, Any]:
        """What a checkpoint keeps: plain JSON, read back by harness.tokenizers.from_dict."""


def vocabulary_sha256(name: str, pieces: Iterable[bytes]) -> str:
    """sha256 of name, a zero byte, then for each id its length (uint32, little) and its bytes."""
    digest = hashlib.sha256(name.encode() + b"\0")
    for piece in pieces:
        digest.update(struct.pack("<I", len(piece)) + piece)
    return digest.hexdigest()
