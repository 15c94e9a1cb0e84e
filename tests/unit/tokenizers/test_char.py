"""A token is a character of one text."""

import numpy as np
import pytest

from harness import tokenizers
from harness.errors import DataError


def test_ids_are_the_places_of_the_sorted_distinct_characters():
    char = tokenizers.get("char", "ba\n🙂b")
    assert char.vocab_size == 4
    ids = char.encode("\nab🙂")
    assert ids.dtype == np.int32
    assert ids.tolist() == [0, 1, 2, 3]
    assert char.decode([3, 2]) == "🙂b"
    assert char.decode([]) == ""


def test_a_vocabulary_from_bytes_is_that_of_their_text():
    assert tokenizers.get("char", "né".encode()) == tokenizers.get("char", "né")


def test_tiny_shakespeare_has_65_characters_and_survives_the_round_trip(shared_data):
    text = (shared_data / "tinyshakespeare.txt").read_bytes().decode()
    char = tokenizers.get("char", text)
    assert char.vocab_size == 65
    assert char.decode(char.encode(text)) == text


@pytest.mark.parametrize("character", ["!", "b", "z", "é"])  # before, between and after the known
def test_an_unknown_character_is_named_with_its_position(character):
    char = tokenizers.get("char", "ac")
    with pytest.raises(DataError, match="is not in the vocabulary") as caught:
        char.encode("ac" + character, where="prompt")
    assert repr(character) in caught.value.headline
    assert caught.value.facts["position"] == "2"
    assert caught.value.facts["where"] == "prompt"


def test_an_id_out_of_range_is_refused():
    with pytest.raises(DataError, match="token id 2 is outside"):
        tokenizers.get("char", "ab").decode([0, 2])


def test_an_empty_text_makes_no_vocabulary():
    with pytest.raises(DataError, match="empty text"):
        tokenizers.get("char", "")


def test_bytes_that_are_not_utf8_are_refused_with_their_offset():
    char = tokenizers.get("char", "abc")
    with pytest.raises(DataError, match="not UTF-8") as caught:
        char.encode(b"abc\xe9", where="letter.txt")
    assert caught.value.facts["where"] == "letter.txt"
    assert caught.value.facts["found"].startswith("byte 0xE9 at offset 3")


def test_other_characters_give_another_hash():
    assert tokenizers.get("char", "ab").sha256 != tokenizers.get("char", "ac").sha256
