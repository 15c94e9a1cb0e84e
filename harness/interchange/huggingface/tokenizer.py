"""The files with which transformers' AutoTokenizer encodes as our byte-pair tokenizers do.

    vocab.json             piece -> id, the bytes as in byte_alphabet.py
    merges.txt             which two pieces are joined, the most urgent first
    tokenizer_config.json  the class, and the end of text
    tokenizer.json         all of it in one, as others write it; of a stranger's we read its vocabulary

tiktoken keeps only the joined pieces, whose ids are their urgency: the two that a piece was joined of
are what remains of it when only more urgent ones are joined.
"""

import json
from pathlib import Path
from typing import Any

from harness.errors import DataError
from harness.files.json_file import read_json
from harness.interchange.huggingface.config import invalid
from harness.tokenizers import Tokenizer, vocabulary_sha256
from harness.tokenizers.bpe import BpeTokenizer
from harness.tokenizers.byte_alphabet import in_bytes, printable
from harness.tokenizers.gpt2 import Gpt2Tokenizer

END_OF_TEXT = "<|endoftext|>"
VOCABULARY = "vocab.json"
ALL_IN_ONE = "tokenizer.json"
MAX_BYTES = 64 << 20  # GPT-2's have 1 MB and 4 MB


def tokenizer_files(tokenizer: Tokenizer) -> dict[str, bytes]:
    """File name -> content. Empty for bytes and characters, which transformers has no class for; for
    GPT-2's where tiktoken's files are not to be had: transformers has those itself, as `gpt2`; and
    for a vocabulary that was not learnt by joining: it would encode otherwise there.
    """
    pieces = _pieces(tokenizer)
    joined = None if pieces is None else _merges(pieces)
    if pieces is None or joined is None:
        return {}
    vocabulary = {printable(piece): id for id, piece in enumerate(pieces)} | {
        END_OF_TEXT: len(pieces)
    }
    merges = "".join(f"{printable(a)} {printable(b)}\n" for a, b in joined)
    config = {
        "tokenizer_class": "GPT2Tokenizer",
        "add_prefix_space": False,
        "bos_token": END_OF_TEXT,
        "eos_token": END_OF_TEXT,
        "unk_token": END_OF_TEXT,
    }
    return {
        VOCABULARY: _json(vocabulary),
        "merges.txt": b"#version: 0.2\n" + merges.encode(),
        "tokenizer_config.json": _json(config),
    }


def has_another_vocabulary(folder: Path) -> bool:
    """Whether a folder's vocab.json or tokenizer.json has other tokens than GPT-2's; False without both.

    Compared is the whole vocabulary, each id's bytes, by its sha256; tiktoken's files are not needed.
    GPT-2's merges are in the order of its ids, so they are not compared.
    Raises CheckpointError where a file is not JSON.
    """
    found = []
    if (folder / VOCABULARY).exists():
        found.append(read_json(folder / VOCABULARY, MAX_BYTES, invalid))
    if (folder / ALL_IN_ONE).exists():
        found.append(_vocabulary_in(read_json(folder / ALL_IN_ONE, MAX_BYTES, invalid)))
    return not all(_is_gpt2s(vocabulary) for vocabulary in found)


def _vocabulary_in(content: Any) -> Any:
    """The pieces of a tokenizer.json, and those that were added later; None where it has no such."""
    try:
        added = {token["content"]: token["id"] for token in content.get("added_tokens") or ()}
        return content["model"]["vocab"] | added
    except (AttributeError, KeyError, TypeError):
        return None  # of a model that has no vocabulary of this kind


def _is_gpt2s(vocabulary: Any) -> bool:
    """vocabulary: piece -> id, of anybody's making."""
    count = Gpt2Tokenizer.vocab_size
    if not isinstance(vocabulary, dict) or len(vocabulary) != count:
        return False
    if not all(type(id) is int for id in vocabulary.values()):
        return False
    if set(vocabulary.values()) != set(range(count)):
        return False
    try:
        pieces = [in_bytes(piece) for piece in sorted(vocabulary, key=vocabulary.__getitem__)]
    except KeyError:  # a character that stands for no byte
        return False
    return vocabulary_sha256(Gpt2Tokenizer.name, pieces) == Gpt2Tokenizer.sha256


def _pieces(tokenizer: Tokenizer) -> list[bytes] | None:
    """The bytes of each id but the last, which is the end of text."""
    if not isinstance(tokenizer, BpeTokenizer | Gpt2Tokenizer):
        return None
    try:
        return list(tokenizer.pieces[:-1])
    except DataError:  # tiktoken's files are not to be had
        return None


def _merges(pieces: list[bytes]) -> list[tuple[bytes, bytes]] | None:
    """The two parts of each piece, in the order of ids; None where a piece has no two."""
    ranks = {piece: id for id, piece in enumerate(pieces)}
    found = []
    for id, piece in enumerate(pieces):
        parts = [piece[i : i + 1] for i in range(len(piece))]
        while len(parts) > 2:
            rank, place = min(
                (ranks.get(parts[i] + parts[i + 1], id), i) for i in range(len(parts) - 1)
            )
            if rank >= id:
                break
            parts[place : place + 2] = [parts[place] + parts[place + 1]]
        if len(parts) > 2:
            return None  # tiktoken finds it as a whole word, and joining never does
        if len(parts) == 2:
            found.append((parts[0], parts[1]))
    return found


def _json(content: dict[str, Any]) -> bytes:
    return json.dumps(content, ensure_ascii=False, indent=None).encode() + b"\n"
