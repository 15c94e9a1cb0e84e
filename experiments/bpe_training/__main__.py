"""Learn byte pairs from two texts, time it, and let two encoders judge each other.

python -m experiments.bpe_training [--tinyshakespeare FILE] [--name NAME]
"""

import argparse
import statistics
import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from harness.data.sources import read_text
from harness.data.splits import tail
from harness.data.tokenizer_file import tokenizer_bytes
from harness.machine.provenance import versions
from harness.run.folder import write_json_atomically
from harness.tokenizers import BpeTokenizer, train_bpe
from harness.tokenizers.byte_alphabet import printable

HERE = Path(__file__).parent
VALIDATION_FRACTION = 0.1
REPEATS = 3
VOCABULARIES = (500, 2000, 8000)


def measure(source: str, path: str | None, vocab_size: int) -> dict[str, Any]:
    """One vocabulary of one text: seconds, bytes a token, and whether the two encoders agree."""
    text = read_text(source, path, Path(".cache"))
    texts = [document.data.decode() for document in text.documents]
    size = sum(len(text.encode()) for text in texts)
    train, validation, tokenizer = tail(text, "bpe", VALIDATION_FRACTION, vocab_size)
    assert isinstance(tokenizer, BpeTokenizer)
    validation_bytes = len(tokenizer.decode(validation).encode())
    other = hugging_face(tokenizer)
    encoded = [tokenizer.encode(text) for text in texts]
    begin = time.perf_counter()
    others = [other.encode(text).ids for text in texts]
    hugging_face_s = time.perf_counter() - begin
    return {
        "source": source,
        "bytes": size,
        "vocab_size": tokenizer.vocab_size,
        "train_s": seconds(lambda: train_bpe(texts, vocab_size)),
        "encode_s": seconds(lambda: [tokenizer.encode(text) for text in texts]),
        "hugging_face_encode_s": hugging_face_s,
        "same_ids": all(map(np.array_equal, encoded, others)),
        "decodes_to_itself": [tokenizer.decode(ids) for ids in encoded] == texts,
        "train_bytes_per_token": (size - validation_bytes) / len(train),
        "validation_bytes_per_token": validation_bytes / len(validation),
        "file_bytes": len(tokenizer_bytes(tokenizer)),
    }


def hugging_face(tokenizer: BpeTokenizer) -> Any:
    """The same pieces in Hugging Face's encoder: the merges are found anew from the pieces alone.

    A piece was joined of the two that remain when only pieces before it may be joined.
    """
    from tokenizers import Tokenizer, models, pre_tokenizers

    ranks = {piece: id for id, piece in enumerate(tokenizer.pieces[:-1])}
    merges = []
    for piece, id in ranks.items():
        if len(piece) == 1:
            continue
        parts = [piece[i : i + 1] for i in range(len(piece))]
        while len(parts) > 2:
            pairs = [ranks.get(a + b, id) for a, b in pairwise(parts)]
            first = min(range(len(pairs)), key=pairs.__getitem__)
            parts[first : first + 2] = [parts[first] + parts[first + 1]]
        merges.append((printable(parts[0]), printable(parts[1])))
    vocabulary = {printable(piece): id for piece, id in ranks.items()}
    other = Tokenizer(models.BPE(vocabulary, merges))
    other.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    return other


def seconds(function: Callable[[], Any]) -> float:
    """The median of some runs, after one to warm up."""
    function()
    times = []
    for _ in range(REPEATS):
        begin = time.perf_counter()
        function()
        times.append(time.perf_counter() - begin)
    return statistics.median(times)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tinyshakespeare", metavar="FILE", help="a copy that is there already")
    parser.add_argument("--name", default="record", help="of the record, without .json")
    arguments = parser.parse_args()
    rows = []
    for source, path in (("tinyshakespeare", arguments.tinyshakespeare), ("stdlib", None)):
        for vocab_size in VOCABULARIES:
            rows.append(measure(source, path, vocab_size))
            print(rows[-1])
    result = {"command": "python -m experiments.bpe_training", "versions": versions()}
    write_json_atomically(HERE / f"{arguments.name}.json", {"rows": rows, **result})


if __name__ == "__main__":
    main()
