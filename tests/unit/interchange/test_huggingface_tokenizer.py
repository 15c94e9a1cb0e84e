"""The tokenizer files beside a model: the tokenizers library encodes with them as we do."""

import json
import os
from pathlib import Path

import numpy as np
import pytest

from harness import tokenizers
from harness.errors import CheckpointError, DataError
from harness.interchange.huggingface.folder import HuggingFaceModel
from harness.interchange.huggingface.tokenizer import tokenizer_files
from harness.tokenizers.bpe import BpeTokenizer
from tests.unit.interchange import huggingface_by_hand as by_hand

TEXT = """First Citizen: Before we proceed any further, hear me speak.

All:\tSpeak, speak!  I'd say 'twas 1599... naïve façade — 東京 🙂\r\n   end   """
PIECES = [*(bytes([i]) for i in range(256)), b" t", b"he", b" the", b"ea"]
PIECES += [b"eak", b"peak", b" s", b" speak"]


def read_by_the_library(files, folder):
    library = pytest.importorskip("tokenizers", reason="the tokenizers library is not installed")
    for name, content in files.items():
        (folder / name).write_bytes(content)
    return library.ByteLevelBPETokenizer(str(folder / "vocab.json"), str(folder / "merges.txt"))


def test_gpt2s_files_encode_as_gpt2(gpt2_files, tmp_path):
    gpt2 = tokenizers.get("gpt2")
    files = tokenizer_files(gpt2)
    merges = files["merges.txt"].decode().splitlines()
    # As OpenAI published it: 50,000 merges, of which these are the first and the last.
    assert (len(merges), merges[1], merges[-1]) == (50_001, "Ġ t", "Ġg azed")
    vocabulary = json.loads(files["vocab.json"])
    assert (len(vocabulary), vocabulary["<|endoftext|>"], vocabulary["Ġthe"]) == (
        50_257,
        50_256,
        262,
    )
    assert read_by_the_library(files, tmp_path).encode(TEXT).ids == gpt2.encode(TEXT).tolist()


def test_byte_pairs_of_ones_own_encode_the_same(tmp_path):
    tokenizer = BpeTokenizer((*PIECES, b"<|endoftext|>"))
    files = tokenizer_files(tokenizer)
    lines = files["merges.txt"].decode().splitlines()
    assert lines[1:] == ["Ġ t", "h e", "Ġt he", "e a", "ea k", "p eak", "Ġ s", "Ġs peak"]
    assert read_by_the_library(files, tmp_path).encode(TEXT).ids == tokenizer.encode(TEXT).tolist()


def test_a_piece_that_joining_never_gives_has_no_files():
    assert tokenizer_files(BpeTokenizer((*PIECES, b"xyz", b"<|endoftext|>"))) == {}


def test_bytes_and_characters_have_no_such_files():
    assert tokenizer_files(tokenizers.get("bytes")) == {}
    assert tokenizer_files(tokenizers.get("char", "abc")) == {}


def test_without_tiktokens_files_there_are_none(monkeypatch):
    def missing(*arguments):
        raise DataError("not here", slug="gpt2-files-missing")

    monkeypatch.setattr("harness.tokenizers.gpt2._encoding", missing)
    assert tokenizer_files(tokenizers.get("gpt2")) == {}


# -- the tokenizer of a stranger's folder ------------------------------------------------------------


@pytest.fixture
def found_beside(tmp_path):
    """What a folder with GPT-2's number of tokens is read as, by the files beside it."""
    weights = by_hand.random_weights() | {"wte.weight": np.zeros((50_257, by_hand.C), np.float32)}
    config = by_hand.CONFIG | {"vocab_size": 50_257}
    folder = by_hand.write_folder(tmp_path / "model", weights, config)

    def read(**files):
        for name, content in files.items():
            (folder / f"{name}.json").write_text(json.dumps(content))
        with HuggingFaceModel(folder) as found:
            return found.tokenizer

    return read


@pytest.fixture
def openais(gpt2_files, monkeypatch):
    """encoder.json, which is the vocab.json of every folder of GPT-2's; tiktoken finds nothing."""
    file = Path(os.environ["TIKTOKEN_CACHE_DIR"]) / "6c7ea1a7e38e3a7f062df639a5b80947f075ffe6"
    if not file.exists():
        pytest.skip("encoder.json is not in the shared data")
    monkeypatch.setattr("harness.tokenizers.gpt2._encoding", lambda: 1 / 0)
    vocabulary = json.loads(file.read_bytes())
    assert vocabulary["\u0120the"] == 262 and len(vocabulary) == 50_257
    return vocabulary


def all_in_one(vocabulary, added=()):
    return {"version": "1.0", "added_tokens": list(added), "model": {"vocab": vocabulary}}


END = {"id": 50_256, "content": "<|endoftext|>", "special": True}


def test_gpt2s_vocabulary_beside_a_model_is_known_as_such(found_beside, openais):
    gpt2 = tokenizers.get("gpt2")
    assert found_beside(vocab=openais) == gpt2
    assert found_beside(vocab=openais, tokenizer=all_in_one(openais, [END])) == gpt2
    apart = {piece: id for piece, id in openais.items() if id != 50_256}
    assert found_beside(tokenizer=all_in_one(apart, [END])) == gpt2


def exchanged(vocabulary):
    return vocabulary | {"\u0120the": 290, "\u0120and": 262}


def renamed(vocabulary):
    return {("\u0120thx" if id == 262 else piece): id for piece, id in vocabulary.items()}


def with_another_end(vocabulary):
    return {("<s>" if id == 50_256 else piece): id for piece, id in vocabulary.items()}


def less(vocabulary):
    return {piece: id for piece, id in vocabulary.items() if id != 40_000}


@pytest.mark.parametrize("change", [exchanged, renamed, with_another_end, less])
def test_a_vocabulary_that_differs_in_one_token_is_not_gpt2s(found_beside, openais, change):
    other = change(openais)
    assert found_beside(vocab=other) is None
    assert found_beside(vocab=openais, tokenizer=all_in_one(other)) is None


ODD = {
    "of its own": {f"w{i}": i for i in range(50_257)},
    "an id twice": {f"w{i}": i // 2 for i in range(50_257)},
    "ids that are no numbers": {f"w{i}": [i] for i in range(50_257)},
    "ids of many digits": {f"w{i}": i + 10**30 for i in range(50_257)},
    "characters of no byte": {f"\u6771{i}": i for i in range(50_257)},
    "half a character": {f"\ud800{i}": i for i in range(50_257)},
    "empty": {},
    "a list": [["<unk>", 0.0]],
    "null": None,
}


@pytest.mark.parametrize("name", ODD)
def test_a_model_with_as_many_tokens_of_its_own_has_not_gpt2s(found_beside, name):
    assert found_beside(tokenizer=all_in_one(ODD[name])) is None
    assert found_beside(tokenizer=[]) is None
    assert found_beside(tokenizer={"model": {"vocab": {}}, "added_tokens": [{"id": 1}]}) is None
    assert found_beside(vocab=ODD[name]) is None


def test_a_vocabulary_that_is_not_json_is_one_error(found_beside, tmp_path):
    for name in ("vocab.json", "tokenizer.json"):
        (tmp_path / "model" / name).write_bytes(b"{\xff")
        with pytest.raises(CheckpointError, match=name) as caught:
            found_beside()
        assert caught.value.slug == "huggingface-config-invalid"
        (tmp_path / "model" / name).unlink()
