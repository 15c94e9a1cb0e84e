"""The files with which transformers' AutoTokenizer encodes as our byte-pair tokenizers do.

    vocab.json             piece -> id, the bytes as in byte_alphabet.py
    merges.txt             which two pieces are joined, the most urgent first
    tokenizer_config.json  the class, and the end of text

tiktoken keeps only the joined pieces, whose ids are their urgency: the two that a piece was joined of
are what remains of it when only more urgent ones are joined.
"""

import json
from typing import Any

from harness.errors import DataError
from harness.tokenizers import Tokenizer
from harness.tokenizers.bpe import BpeTokenizer
from harness.tokenizers.byte_alphabet import printable
from harness.tokenizers.gpt2 import Gpt2Tokenizer

END_OF_TEXT = "<|endoftext|>"


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
        "vocab.json": _json(vocabulary),
        "merges.txt": b"#version: 0.2\n" + merges.encode(),
        "tokenizer_config.json": _json(config),
    }


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
