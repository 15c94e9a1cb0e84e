"""A token is a byte."""

import hashlib

import numpy as np
import pytest

from harness import tokenizers
from harness.errors import DataError

BYTES = tokenizers.get("bytes")


def test_an_id_is_the_value_of_its_byte():
    assert BYTES.vocab_size == 256
    ids = BYTES.encode(b"A\xff\0")
    assert ids.dtype == np.int32
    assert ids.tolist() == [65, 255, 0]


def test_text_is_encoded_as_utf8_and_decoded_again():
    text = "naïve \f\r\n 語 🙂"
    assert BYTES.encode(text).tolist() == list(text.encode())
    assert BYTES.decode(BYTES.encode(text)) == text


def test_decoding_never_raises_for_ids_in_range():
    rng = np.random.default_rng(0)
    assert BYTES.decode([0xC3]) == "\N{REPLACEMENT CHARACTER}"
    assert BYTES.decode([]) == ""
    for _ in range(50):
        ids = rng.integers(0, 256, size=40)
        assert BYTES.decode(ids) == bytes(ids.tolist()).decode("utf-8", "replace")


@pytest.mark.parametrize(("ids", "position"), [([1, 256], "1"), ([-1], "0"), ([0, 0, 2**40], "2")])
def test_an_id_out_of_range_is_refused_with_its_position(ids, position):
    with pytest.raises(DataError, match=f"token id {ids[-1]} is outside") as caught:
        BYTES.decode(ids)
    assert caught.value.facts["position"] == position
    assert caught.value.facts["expected"] == "0 to 255"


@pytest.mark.parametrize("ids", [[0.5], [True], ["a"], [2**70]], ids=repr)
def test_ids_that_are_no_integers_are_refused(ids):
    with pytest.raises(DataError, match="must be 64-bit integers"):
        BYTES.decode(ids)


def test_bytes_that_came_through_the_command_line_are_kept():
    argument = b"caf\xe9".decode("utf-8", errors="surrogateescape")  # as sys.argv does
    assert BYTES.encode(argument).tolist() == list(b"caf\xe9")


def test_half_a_surrogate_pair_is_refused():
    with pytest.raises(DataError, match="surrogate") as caught:
        BYTES.encode("ab\ud800")
    assert caught.value.facts["found"] == "U+D800 at position 2"


def test_the_hash_can_be_recomputed_from_its_definition():
    pieces = b"".join(b"\x01\0\0\0" + bytes([byte]) for byte in range(256))
    assert BYTES.sha256 == hashlib.sha256(b"bytes\0" + pieces).hexdigest()
