"""A token is a character, and the vocabulary is the characters of one text.  Config name: char."""

from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from harness.errors import DataError
from harness.tokenizers import utf8
from harness.tokenizers.token_ids import check_token_ids
from harness.tokenizers.tokenizer import TokenIds, vocabulary_sha256


@dataclass(frozen=True)
class CharTokenizer:
    """characters: the vocabulary, distinct and sorted by code point; the index is the id."""

    characters: str
    name: ClassVar[str] = "char"
    end_of_text: ClassVar[int | None] = None

    @classmethod
    def from_text(cls, text: str | bytes) -> "CharTokenizer":
        characters = "".join(sorted(set(utf8.checked(text))))
        if not characters:
            raise DataError(
                "an empty text has no characters to make a vocabulary of",
                slug="vocabulary-empty",
                do="give a text, or data.tokenizer=bytes",
            )
        return cls(characters)

    @property
    def vocab_size(self) -> int:
        return len(self.characters)

    @property
    def sha256(self) -> str:
        return vocabulary_sha256(self.name, (c.encode() for c in self.characters))

    def encode(self, text: str | bytes, where: str | None = None) -> npt.NDArray[np.int32]:
        text = utf8.checked(text, where)
        points = _code_points(text)
        ids = np.searchsorted(self._vocabulary, points)
        unknown = self._vocabulary[np.minimum(ids, self.vocab_size - 1)] != points
        if unknown.any():
            position = int(np.argmax(unknown))
            raise DataError(
                f"character {text[position]!r} is not in the vocabulary",
                slug="character-unknown",
                where=where,
                position=f"{position:,}",
                expected=f"one of the {self.vocab_size:,} characters of the training text",
                do="leave it out, or train with data.tokenizer=bytes",
            )
        return ids.astype(np.int32)

    def decode(self, ids: TokenIds) -> str:
        tokens = check_token_ids(ids, self.vocab_size)
        return self._vocabulary[tokens].tobytes().decode("utf-32-le")

    def to_dict(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "vocab_size": self.vocab_size,
            "sha256": self.sha256,
            "characters": self.characters,
        }

    @cached_property
    def _vocabulary(self) -> npt.NDArray[np.uint32]:
        return _code_points(self.characters)


def _code_points(text: str) -> npt.NDArray[np.uint32]:
    return np.frombuffer(text.encode("utf-32-le"), dtype="<u4")
