"""Byte pairs learnt from a text of one's own, in GPT-2's manner.  Config name: bpe.

The text is split into words by GPT-2's pattern; a word is bytes, and the pair of neighbours whose
joined piece has the least id is joined until there is none. The ids are the bytes, then the pieces
in the order in which they were learnt, then <|endoftext|>. Learning them is in bpe_training.py.
"""

import functools
from collections import Counter
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from harness.errors import DataError
from harness.tokenizers.byte_alphabet import in_bytes, printable
from harness.tokenizers.tiktoken_calls import encode_ordinary
from harness.tokenizers.token_ids import check_token_ids
from harness.tokenizers.tokenizer import TokenIds, vocabulary_sha256

END_OF_TEXT = b"<|endoftext|>"
MIN_VOCABULARY = 257  # every byte, and the end of text
MAX_VOCABULARY = 65_536  # token files hold uint16
MAX_PIECE_BYTES = 255  # llm.c's tokenizer file gives the length one byte

# How GPT-2 splits text: contractions; letters, digits, or marks with the blank before them; blanks,
# of which the last is left to the word that follows. ++ is + that never gives back: the same words,
# and a long run needs no stack.
WORDS = r"'(?:[sdmt]|ll|ve|re)| ?\p{L}++| ?\p{N}++| ?[^\s\p{L}\p{N}]++|\s++$|\s+(?!\S)|\s"


@dataclass(frozen=True)
class BpeTokenizer:
    """pieces: the bytes of each id. All 256 single bytes are among them, and the last is the end of
    text; `from_pieces` makes sure of it.
    """

    pieces: tuple[bytes, ...]
    name: ClassVar[str] = "bpe"

    @classmethod
    def from_pieces(cls, pieces: object) -> "BpeTokenizer":
        """pieces: a list of strings in byte_alphabet.py's characters, as `to_dict` gives it."""
        if not isinstance(pieces, list):
            raise _invalid("a list of pieces", type(pieces).__name__)
        if not MIN_VOCABULARY <= len(pieces) <= MAX_VOCABULARY:
            allowed = f"{MIN_VOCABULARY:,} to {MAX_VOCABULARY:,} pieces"
            raise _invalid(allowed, f"{len(pieces):,}")
        found = tuple(_piece(id, text) for id, text in enumerate(pieces))
        if found[-1] != END_OF_TEXT:
            raise _invalid(f"the last piece to be {END_OF_TEXT.decode()}", repr(pieces[-1]))
        known = set(found)
        for byte in range(256):
            if bytes([byte]) not in known:
                raise _invalid("a piece for every byte", f"none for 0x{byte:02X}")
        if len(known) < len(found):
            piece, _ = Counter(found).most_common(1)[0]
            raise _invalid("every piece once", f"{printable(piece)!r} twice")
        return cls(found)

    @property
    def vocab_size(self) -> int:
        return len(self.pieces)

    @property
    def end_of_text(self) -> int:
        return len(self.pieces) - 1

    @property
    def sha256(self) -> str:
        return vocabulary_sha256(self.name, self.pieces)

    def encode(self, text: str | bytes, where: str | None = None) -> npt.NDArray[np.int32]:
        """Ordinary encoding: <|endoftext|> in a text is its characters, not the last id."""
        return encode_ordinary(
            lambda: self.encoding,
            text,
            lambda found: DataError(
                "tiktoken could not encode a text",
                slug="bpe-encode-failed",
                where=where,
                found=found,
                do="look for very long runs of one character, or data.tokenizer=bytes",
            ),
            where,
        )

    def decode(self, ids: TokenIds) -> str:
        tokens: list[int] = check_token_ids(ids, self.vocab_size).ravel().tolist()
        data = b"".join(map(self.pieces.__getitem__, tokens))
        return data.decode("utf-8", errors="replace")

    def to_dict(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "vocab_size": self.vocab_size,
            "sha256": self.sha256,
            "pieces": [printable(piece) for piece in self.pieces],
        }

    @functools.cached_property
    def encoding(self) -> Any:
        """The same tokenizer as a tiktoken.Encoding, for programs that take one."""
        import tiktoken

        ranks = {piece: id for id, piece in enumerate(self.pieces[:-1])}
        return tiktoken.Encoding(
            f"harness_bpe_{self.sha256[:12]}",
            pat_str=WORDS,
            mergeable_ranks=ranks,
            special_tokens={END_OF_TEXT.decode(): self.end_of_text},
            explicit_n_vocab=self.vocab_size,
        )


def _piece(id: int, text: object) -> bytes:
    if not isinstance(text, str) or not 0 < len(text) <= MAX_PIECE_BYTES:
        raise _invalid(f"a piece of 1 to {MAX_PIECE_BYTES} bytes as id {id}", f"{_short(text)}")
    try:
        return in_bytes(text)
    except KeyError as error:
        raise _invalid(
            f"a byte for each character of id {id} (harness/tokenizers/byte_alphabet.py)",
            f"{error.args[0]!r}",
        ) from None


def _short(text: object) -> str:
    return f"a piece of {len(text):,}" if isinstance(text, str) else type(text).__name__


def _invalid(expected: str, found: str) -> DataError:
    return DataError(
        "these are not the pieces of a byte-pair tokenizer",
        slug="bpe-pieces-invalid",
        expected=expected,
        found=found,
        do="take the file or checkpoint from where it was made",
    )
