"""A token is a number, written in decimal: for models of ids that stand for no text."""

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from harness.errors import DataError
from harness.tokenizers.token_ids import check_token_ids
from harness.tokenizers.tokenizer import TokenIds, vocabulary_sha256


@dataclass(frozen=True)
class NumberTokenizer:
    """A token is a number, written in decimal; blanks stand between."""

    vocab_size: int
    name: ClassVar[str] = "numbers"
    end_of_text: ClassVar[int | None] = None

    @property
    def sha256(self) -> str:
        return vocabulary_sha256(self.name, (b"%d" % i for i in range(self.vocab_size)))

    def encode(self, text: str | bytes, where: str | None = None) -> npt.NDArray[np.int32]:
        words = text.split()
        try:
            numbers = [int(word) for word in words]
        except ValueError:
            raise DataError(
                f"not numbers between blanks: {text!r}", slug="not-numbers", where=where
            ) from None
        return check_token_ids(numbers, self.vocab_size, where).astype(np.int32)

    def decode(self, ids: TokenIds) -> str:
        return " ".join(map(str, check_token_ids(ids, self.vocab_size)))

    def to_dict(self) -> dict[str, Any]:
        return {"name": self.name, "vocab_size": self.vocab_size, "sha256": self.sha256}
