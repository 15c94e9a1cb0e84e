"""The numbers 0, 1, 2, ... as tokens: just as many as one step takes, so every step sees the same.

What is left to learn is the order of the numbers; a model that does not is broken.
"""

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from harness.data.dataset import Dataset
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
            tokens = check_token_ids([int(w) for w in words], self.vocab_size)
        except ValueError:
            raise DataError(
                f"not numbers between blanks: {text!r}", slug="not-numbers", where=where
            ) from None
        return tokens.astype(np.int32)

    def decode(self, ids: TokenIds) -> str:
        return " ".join(map(str, check_token_ids(ids, self.vocab_size)))

    def to_dict(self) -> dict[str, Any]:
        return {"name": self.name, "vocab_size": self.vocab_size, "sha256": self.sha256}


def load_counting(vocab_size: int, tokens_per_step: int) -> Dataset:
    """tokens_per_step + 1 numbers, counted around the vocabulary, for training and validation."""
    tokens = np.arange(tokens_per_step + 1, dtype=np.int32) % vocab_size
    description = f"counting: {len(tokens):,} tokens, every step the same"
    return Dataset(tokens, tokens, NumberTokenizer(vocab_size), description)
