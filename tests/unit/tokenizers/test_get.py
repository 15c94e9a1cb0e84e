"""Tokenizers by name, and from the record in a checkpoint."""

import json
import subprocess
import sys

import pytest

from harness import tokenizers
from harness.errors import ConfigError, DataError

EVERY = pytest.mark.parametrize("name", tokenizers.NAMES)


@EVERY
def test_a_tokenizer_comes_back_from_its_json(name):
    tokenizer = tokenizers.get(name, "some text")
    record = json.loads(json.dumps(tokenizer.to_dict()))
    again = tokenizers.from_dict(record)
    assert again == tokenizer
    assert again.sha256 == tokenizer.sha256 == record["sha256"]


def test_an_unknown_name_is_refused_with_the_nearest():
    with pytest.raises(ConfigError, match="no tokenizer is called 'gtp2'") as caught:
        tokenizers.get("gtp2")
    assert caught.value.facts == {
        "there is": "bytes, char, bpe, gpt2, or a file that ends in .json",
        "do": "data.tokenizer=gpt2",
    }


@pytest.mark.parametrize("name", ["char", "bpe"])
def test_a_vocabulary_from_a_text_without_a_text_is_refused(name):
    with pytest.raises(ConfigError, match="needs a text"):
        tokenizers.get(name)


@pytest.mark.parametrize(
    "record",
    [
        None,
        [],
        "bytes",
        {},
        {"name": "gtp2"},
        {"name": ["bytes"]},
        {"name": "bytes"},
        {"name": "bytes", "vocab_size": 255},
        {"name": "char"},
        {"name": "char", "characters": 7},
        {"name": "char", "characters": ""},
        {"name": "char", "characters": "\ud800"},
        {"name": "char", "characters": "ba"},
        {"name": "char", "characters": "aab"},
        {"name": "char", "characters": "ab", "vocab_size": 2, "sha256": "0" * 64},
        {"name": "bpe"},
        {"name": "bpe", "pieces": []},
    ],
    ids=repr,
)
def test_a_damaged_record_is_a_data_error(record):
    with pytest.raises(DataError):
        tokenizers.from_dict(record)


def test_a_record_with_a_changed_hash_says_which_part_differs():
    record = tokenizers.get("bytes").to_dict() | {"sha256": "0" * 64}
    with pytest.raises(DataError, match="sha256 should be"):
        tokenizers.from_dict(record)


def test_tokenizers_and_data_import_nothing_heavy_but_numpy():
    heavy = ["hydra", "pytest", "requests", "tiktoken", "tokenizers", "torch", "urllib.request"]
    code = (
        "import sys, harness.tokenizers, harness.data;"
        f"print(*[name for name in {heavy} if name in sys.modules])"
    )
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert answer.stderr == ""
    assert answer.stdout.split() == []
