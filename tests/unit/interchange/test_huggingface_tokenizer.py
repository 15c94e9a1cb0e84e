"""The tokenizer files beside a model: the tokenizers library encodes with them as we do."""

import json
import os
from pathlib import Path

import pytest

from harness import tokenizers
from harness.errors import DataError
from harness.interchange.huggingface_tokenizer import tokenizer_files
from harness.tokenizers.bpe import BpeTokenizer

TEXT = """First Citizen: Before we proceed any further, hear me speak.

All:\tSpeak, speak!  I'd say 'twas 1599... naïve façade — 東京 🙂\r\n   end   """
PIECES = [*(bytes([i]) for i in range(256)), b" t", b"he", b" the", b"ea"]
PIECES += [b"eak", b"peak", b" s", b" speak"]


@pytest.fixture
def gpt2_files(monkeypatch):
    default = Path(__file__).resolve().parents[4] / "shared" / "data"
    folder = Path(os.environ.get("HARNESS_SHARED_DATA", default)) / "tiktoken"
    if not folder.is_dir():
        pytest.skip("no tiktoken folder in the shared data")
    monkeypatch.setenv("TIKTOKEN_CACHE_DIR", str(folder))


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
