"""OpenAI's byte pairs."""

import json

import numpy as np
import pytest

from harness import tokenizers
from harness.errors import DataError

GPT2 = tokenizers.get("gpt2")


def test_known_words_have_their_published_ids(gpt2_files):
    ids = GPT2.encode("Hello world")
    assert ids.dtype == np.int32
    assert ids.tolist() == [15496, 995]  # as OpenAI's encoder.py and Hugging Face give
    assert GPT2.decode(ids) == "Hello world"


def test_tiny_shakespeare_has_its_published_number_of_tokens(gpt2_files, shared_data):
    text = (shared_data / "tinyshakespeare.txt").read_bytes()
    assert len(GPT2.encode(text)) == 301_966 + 36_059  # nanoGPT's readme


def test_end_of_text_written_in_a_text_is_ordinary_characters(gpt2_files):
    ids = GPT2.encode("<|endoftext|>")
    assert GPT2.end_of_text == 50_256
    assert GPT2.end_of_text not in ids
    assert GPT2.decode([50_256]) == "<|endoftext|>"


def test_half_a_character_decodes_to_a_replacement(gpt2_files):
    assert GPT2.decode([188]) == "\0"
    assert "\N{REPLACEMENT CHARACTER}" in GPT2.decode(GPT2.encode("🙂")[:1])
    assert GPT2.decode([]) == ""


def test_an_id_in_the_padding_of_the_vocabulary_is_refused():
    with pytest.raises(DataError, match="token id 50257 is outside"):
        GPT2.decode([50_257])


def test_bytes_that_are_not_utf8_are_refused():
    with pytest.raises(DataError, match="not UTF-8"):
        GPT2.encode(b"\xff")


def test_the_constant_hash_is_that_of_the_vocabulary(gpt2_files):
    encoding = tokenizers.gpt2._encoding()
    pieces = map(encoding.decode_single_token_bytes, range(encoding.n_vocab))
    assert tokenizers.vocabulary_sha256("gpt2", pieces) == GPT2.sha256


def test_the_constant_hash_is_that_of_openai_s_own_vocabulary_file(shared_data):
    # encoder.json under its name in tiktoken's cache; its keys are bytes made printable.
    file = shared_data / "tiktoken" / "6c7ea1a7e38e3a7f062df639a5b80947f075ffe6"
    if not file.exists():
        pytest.skip("encoder.json is not in the shared data")
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    hidden = [byte for byte in range(256) if byte not in printable]
    byte_of = {chr(b): b for b in printable} | {chr(256 + n): b for n, b in enumerate(hidden)}
    ids = json.loads(file.read_bytes())
    pieces = sorted(ids, key=ids.__getitem__)
    assert pieces[-1] == "<|endoftext|>"
    pieces_in_bytes = [bytes(byte_of[c] for c in piece) for piece in pieces]
    assert tokenizers.vocabulary_sha256("gpt2", pieces_in_bytes) == GPT2.sha256


def test_files_that_cannot_be_downloaded_are_a_data_error_with_the_remedy(monkeypatch, tmp_path):
    import tiktoken.load
    import tiktoken.registry

    def no_network(path):
        raise ConnectionError("no route to host")

    monkeypatch.setenv("TIKTOKEN_CACHE_DIR", str(tmp_path))
    monkeypatch.setattr(tiktoken.load, "read_file", no_network)
    monkeypatch.setattr(tiktoken.registry, "ENCODINGS", {})
    with pytest.raises(DataError, match="can't have its files") as caught:
        GPT2.encode("text")
    assert "no route to host" in caught.value.facts["found"]
    assert "TIKTOKEN_CACHE_DIR" in caught.value.facts["do"]


class Panic(BaseException):
    """What a panic in Rust looks like: not an Exception."""


def test_a_panic_is_a_data_error(monkeypatch):
    class Panicking:
        def encode_ordinary(self, text):
            raise Panic("stack overflow")

    monkeypatch.setattr("tiktoken.get_encoding", lambda name: Panicking())
    with pytest.raises(DataError, match="could not encode") as caught:
        GPT2.encode("text", where="a.txt")
    assert caught.value.facts["found"] == "Panic: stack overflow"
    assert caught.value.facts["where"] == "a.txt"


def test_an_interrupt_stays_an_interrupt(monkeypatch):
    def interrupted(name):
        raise KeyboardInterrupt

    monkeypatch.setattr("tiktoken.get_encoding", interrupted)
    with pytest.raises(KeyboardInterrupt):
        GPT2.encode("text")


def test_a_record_needs_no_files(monkeypatch):
    monkeypatch.setattr("tiktoken.get_encoding", None)
    assert tokenizers.from_dict(GPT2.to_dict()).vocab_size == 50_257
