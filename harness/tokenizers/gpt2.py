"""OpenAI's byte pairs, as GPT-2 was trained with, through tiktoken.  Config name: gpt2.

V = 50,257. tiktoken downloads two files (1.5 MB) the first time that it encodes or decodes;
training on files of token ids needs neither.
"""

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from harness.errors import DataError
from harness.tokenizers.tiktoken_calls import call, encode_ordinary
from harness.tokenizers.token_ids import check_token_ids
from harness.tokenizers.tokenizer import TokenIds


@dataclass(frozen=True)
class Gpt2Tokenizer:
    name: ClassVar[str] = "gpt2"
    vocab_size: ClassVar[int] = 50_257
    end_of_text: ClassVar[int | None] = 50_256  # <|endoftext|>
    # A constant, so that a checkpoint can be written and read where tiktoken's files are not.
    sha256: ClassVar[str] = "05708a3608916164cf61d1dfb54a9cbda5bac683da0fe17a5e47e2b0ea268257"

    @property
    def pieces(self) -> tuple[bytes, ...]:
        """The bytes of each id; half a character has no text, so decode cannot be asked."""
        encoding = _encoding()
        return tuple(encoding.decode_single_token_bytes(id) for id in range(self.vocab_size))

    def encode(self, text: str | bytes, where: str | None = None) -> npt.NDArray[np.int32]:
        """Ordinary encoding: <|endoftext|> in a text is its 13 characters, not id 50256."""
        return encode_ordinary(
            _encoding,
            text,
            lambda found: DataError(
                "tiktoken could not encode a text",
                slug="gpt2-encode-failed",
                where=where,
                found=found,
                do="look for very long runs of one character, or data.tokenizer=bytes",
            ),
            where,
        )

    def decode(self, ids: TokenIds) -> str:
        tokens: list[int] = check_token_ids(ids, self.vocab_size).ravel().tolist()
        return _encoding().decode(tokens, errors="replace")

    def to_dict(self) -> dict[str, Any]:
        return {"name": self.name, "vocab_size": self.vocab_size, "sha256": self.sha256}


def _encoding() -> Any:
    """tiktoken's encoding, which it keeps, and whose files' hashes it checks."""
    import tiktoken

    return call(
        lambda: tiktoken.get_encoding("gpt2"),
        lambda found: DataError(
            "tokenizer gpt2 can't have its files",
            slug="gpt2-files-missing",
            found=found,
            do="run once with a network and TIKTOKEN_CACHE_DIR=FOLDER, then keep that folder\n"
            "and the setting; or data.tokenizer=bytes, which needs no files",
        ),
    )
