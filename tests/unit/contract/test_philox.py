"""The random words are those that others publish for Philox4x32-10, and each has its number."""

import numpy as np
import pytest

from harness.contract.philox import philox_4x32, words

# Random123 1.14, tests/kat_vectors: "philox4x32 10", counter, key -> result.
PUBLISHED = [
    ((0, 0, 0, 0), (0, 0), (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
    (
        (0xFFFFFFFF,) * 4,
        (0xFFFFFFFF,) * 2,
        (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD),
    ),
    (
        (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
        (0xA4093822, 0x299F31D0),
        (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1),
    ),
]
KEY = np.array([-5, 7], np.int32)


@pytest.mark.parametrize(("counter", "key", "result"), PUBLISHED)
def test_the_published_vectors_are_met(counter, key, result):
    found = philox_4x32(np.array(counter, np.uint64).reshape(4, 1), np.array(key))
    assert tuple(int(word) for word in found[:, 0]) == result


@pytest.mark.parametrize("first", [0, 1, 2, 3, 4, 1001])
def test_a_part_has_the_words_of_the_whole(first):
    whole = words(0, first + 50, KEY)
    np.testing.assert_array_equal(words(first, 50, KEY), whole[first:])


def test_an_element_has_a_word_of_the_block_that_it_is_in():
    block = philox_4x32(np.array([[6], [0], [0], [0]], np.uint64), KEY)[:, 0]
    np.testing.assert_array_equal(words(24, 4, KEY), block)


def test_the_counter_goes_on_beyond_32_bits():
    first = 1 << 34  # block 2^32
    block = philox_4x32(np.array([[0], [1], [0], [0]], np.uint64), KEY)[:, 0]
    np.testing.assert_array_equal(words(first, 4, KEY), block)
    assert not np.array_equal(words(first, 4, KEY), words(0, 4, KEY))


def test_negative_words_of_a_key_are_taken_as_their_bits():
    unsigned = KEY.astype(np.int64) % (1 << 32)
    np.testing.assert_array_equal(words(0, 8, KEY), words(0, 8, unsigned))
