"""A token is a byte: V = 256, nothing to download, any file is text.  Config name: bytes."""

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from harness.tokenizers import utf8
from harness.tokenizers.token_ids import check_token_ids
from harness.tokenizers.tokenizer import TokenIds, vocabulary_sha256


@dataclass(frozen=True)
class ByteTokenizer:
    name: ClassVar[str] = "bytes"
    vocab_size: ClassVar[int] = 256
    end_of_text: ClassVar[int | None] = None

    @property
    def sha256(self) -> str:
        return vocabulary_sha256(self.name, (bytes([byte]) for byte in range(256)))

    def encode(self, text: str | bytes, where: str | None = None) -> npt.NDArray[np.int32]:
        data = utf8.encode(text, where) if isinstance(text, str) else text
        return np.frombuffer(data, dtype=np.uint8).astype(np.int32)

    def decode(self, ids: TokenIds) -> str:
        tokens = check_token_ids(ids, self.vocab_size)
        return tokens.astype(np.uint8).tobytes().decode("utf-8", errors="replace")

    def to_dict(self) -> dict[str, Any]:
        return {"name": self.name, "vocab_size": self.vocab_size, "sha256": self.sha256}
