"""Tokens for training and for validation, and the checks that stand before both."""

import hashlib

import numpy as np
import pytest

from harness import tokenizers
from harness.data import check_token_ids, load, require, write_token_file
from harness.errors import ConfigError, DataError


@pytest.fixture
def load_text(tmp_path):
    def load_text(*documents: bytes, tokenizer="bytes", validation_fraction=0.25):
        for number, data in enumerate(documents):
            (tmp_path / f"{number}.txt").write_bytes(data)
        return load("text", f"{tmp_path}/*.txt", tokenizer, validation_fraction, tmp_path)

    return load_text


def test_the_tail_of_the_stream_is_the_validation(load_text):
    dataset = load_text(b"abc", b"defgh")
    assert bytes(dataset.train.tolist()) == b"abcdef"
    assert bytes(dataset.validation.tolist()) == b"gh"
    assert dataset.train.dtype == dataset.validation.dtype == np.int32
    assert dataset.vocab_size == 256
    assert dataset.description == (
        "text: 2 files, 8 bytes; 6 training and 2 validation tokens (bytes, vocabulary 256)"
    )


def test_the_default_source_loads(tmp_path):
    dataset = load("stdlib", None, "bytes", 0.1, tmp_path)
    count = len(dataset.train) + len(dataset.validation)
    assert count > 3_000_000
    assert len(dataset.train) == int(count * 0.9)


def test_tiny_shakespeare_is_cut_where_nanogpt_cuts_it(shared_data, tmp_path):
    file = str(shared_data / "tinyshakespeare.txt")
    dataset = load("tinyshakespeare", file, "char", 0.1, tmp_path)
    assert (len(dataset.train), len(dataset.validation)) == (1_003_854, 111_540)
    assert dataset.vocab_size == 65


def test_the_vocabulary_of_characters_is_that_of_all_documents(load_text):
    dataset = load_text(b"ab", "é".encode(), tokenizer="char")
    assert dataset.tokenizer == tokenizers.get("char", "abé")


def test_a_tokenizer_from_a_checkpoint_is_used_as_it_is(load_text):
    char = tokenizers.get("char", "abcdef")
    dataset = load_text(b"fed", tokenizer=char, validation_fraction=0)
    assert dataset.tokenizer is char
    assert dataset.train.tolist() == [5, 4, 3]
    assert len(dataset.validation) == 0


def test_end_of_text_stands_between_two_documents(load_text, gpt2_files):
    dataset = load_text(b"Hello", b" world", tokenizer="gpt2", validation_fraction=0)
    assert dataset.train.tolist() == [15496, 50256, 995]


def test_a_character_that_a_checkpoint_does_not_know_is_named_with_its_file(load_text):
    with pytest.raises(DataError, match="character 'z'") as caught:
        load_text(b"ab", b"az", tokenizer=tokenizers.get("char", "ab"))
    assert caught.value.facts["where"].endswith("1.txt")
    assert caught.value.facts["position"] == "1"


@pytest.mark.parametrize("tokenizer", ["char", "gpt2"])
def test_text_that_is_not_utf8_is_refused_with_file_and_offset(load_text, tokenizer, gpt2_files):
    with pytest.raises(DataError, match="not UTF-8") as caught:
        load_text(b"good", b"caf\xe9 noir", tokenizer=tokenizer)
    assert caught.value.facts["where"].endswith("1.txt")
    assert caught.value.facts["found"].startswith("byte 0xE9 at offset 3")
    assert "data.tokenizer=bytes" in caught.value.facts["do"]


def test_the_bytes_tokenizer_takes_any_bytes(load_text):
    dataset = load_text(bytes(range(256)), validation_fraction=0)
    assert dataset.train.tolist() == list(range(256))


def test_the_hash_is_that_of_the_tokens_and_of_the_cut(load_text):
    def expected(train, validation):
        parts = (
            len(part).to_bytes(8, "little") + np.array(part, "<i4").tobytes()
            for part in (train, validation)
        )
        return hashlib.sha256(b"".join(parts)).hexdigest()

    assert load_text(b"abcd").sha256 == expected(list(b"abc"), list(b"d"))
    assert load_text(b"abcd", validation_fraction=0.5).sha256 == expected(list(b"ab"), list(b"cd"))


def test_the_hash_does_not_depend_on_how_the_tokens_are_kept(load_text, tmp_path):
    write_token_file(tmp_path / "t.bin", list(b"abcd"))
    from_tokens = load("tokens", str(tmp_path / "t.bin"), "bytes", 0.25, tmp_path)
    assert from_tokens.train.dtype == np.uint16
    assert from_tokens.sha256 == load_text(b"abcd").sha256


@pytest.mark.parametrize("fraction", [-0.1, 1, 1.5, float("nan")])
def test_a_validation_fraction_that_is_none_is_refused(load_text, fraction):
    with pytest.raises(ConfigError, match="is not a fraction"):
        load_text(b"abcd", validation_fraction=fraction)


# Files of token ids


def test_shards_follow_one_another_in_sorted_order(tmp_path):
    write_token_file(tmp_path / "b.bin", [4, 5, 6, 7])
    write_token_file(tmp_path / "a.bin", [0, 1, 2, 3])
    for path in (f"{tmp_path}/*.bin", str(tmp_path)):
        dataset = load("tokens", path, "gpt2", 0.25, tmp_path)
        assert dataset.train.tolist() == [0, 1, 2, 3, 4, 5]
        assert dataset.validation.tolist() == [6, 7]
    assert dataset.description.startswith("tokens: 2 files, 2,064 bytes; 6 training and 2")


def test_validation_comes_from_val_files_where_there_are_both(tmp_path):
    write_token_file(tmp_path / "shakespeare_train.bin", [0, 1, 2])
    write_token_file(tmp_path / "shakespeare_val.bin", [9])
    dataset = load("tokens", f"{tmp_path}/shakespeare_*.bin", "gpt2", 0.5, tmp_path)
    assert dataset.train.tolist() == [0, 1, 2]
    assert dataset.validation.tolist() == [9]
    dataset = load("tokens", f"{tmp_path}/*_train.bin", "gpt2", 0.5, tmp_path)
    assert dataset.validation.tolist() == [1, 2]


def test_an_id_outside_the_vocabulary_is_refused_on_loading(tmp_path):
    write_token_file(tmp_path / "t.bin", [1, 2, 256, 3])
    with pytest.raises(DataError, match="token id 256 is outside") as caught:
        load("tokens", str(tmp_path / "t.bin"), "bytes", 0.25, tmp_path)
    assert caught.value.facts["position"] == "2"


def test_files_without_tokens_are_refused(tmp_path):
    write_token_file(tmp_path / "t.bin", [])
    with pytest.raises(DataError, match="there are no tokens in"):
        load("tokens", str(tmp_path / "t.bin"), "gpt2", 0.1, tmp_path)


def test_a_folder_without_token_files_is_refused(tmp_path):
    (tmp_path / "readme.txt").write_text("text")
    with pytest.raises(DataError, match=r"folder has no \.bin files"):
        load("tokens", str(tmp_path), "gpt2", 0.1, tmp_path)


def test_tokens_cannot_be_read_with_a_vocabulary_that_needs_text(tmp_path):
    write_token_file(tmp_path / "t.bin", [1])
    with pytest.raises(ConfigError, match="needs a text"):
        load("tokens", str(tmp_path / "t.bin"), "char", 0.1, tmp_path)


# The checks


@pytest.mark.parametrize(
    ("count", "fits"),
    [
        (0, "nothing: B=1 and T=1 need 2 tokens"),
        (1, "nothing: B=1 and T=1 need 2 tokens"),
        (2, "B=1 and T=1"),
        (5, "T=1 or less with B=4"),
        (9, "T=2 or less with B=4, or B=1 or less with T=8"),
        (32, "T=7 or less with B=4, or B=3 or less with T=8"),
    ],
)
def test_too_few_tokens_are_refused_with_the_counts_and_what_fits(count, fits):
    with pytest.raises(DataError, match="too few tokens for one batch: validation") as caught:
        require(np.zeros(count, np.int32), batch_size=4, T=8, name="validation")
    assert caught.value.facts["found"] == f"{count} tokens"
    assert caught.value.facts["expected"] == "33 tokens: B*T + 1 with B=4 and T=8"
    assert caught.value.facts["fits"] == fits


@pytest.mark.parametrize(("count", "B", "T"), [(33, 4, 8), (2, 1, 1), (29, 4, 7), (25, 3, 8)])
def test_one_token_more_than_a_batch_is_enough(count, B, T):
    require(np.zeros(count, np.int32), batch_size=B, T=T)


@pytest.mark.parametrize("dtype", [np.int32, np.int64])
def test_the_first_bad_id_is_named_with_its_position(dtype):
    ids = np.array([[0, 1, 2], [3, -1, 9]], dtype=dtype)
    with pytest.raises(DataError, match="token id -1 is outside") as caught:
        check_token_ids(ids, 4, where="prompt")
    assert caught.value.facts == {
        "where": "prompt",
        "position": "(1, 1)",
        "expected": "0 to 3",
        "do": "use the tokenizer that made these ids",
    }


@pytest.mark.parametrize("ids", [[], [0], [255], np.arange(256, dtype=np.uint16)], ids=len)
def test_ids_inside_the_vocabulary_pass(ids):
    assert check_token_ids(ids, 256).tolist() == list(ids)
