"""Text that appears token by token is in the end the text of all tokens, and never half a character."""

import numpy as np
import pytest

from harness import tokenizers
from harness.generation.text_stream import REPLACEMENT, TextStream, printable
from harness.tokenizers.numbers import NumberTokenizer

BYTES = tokenizers.get("bytes")


def shown(tokenizer, tokens, context=()):
    stream = TextStream(tokenizer, list(context))
    return [*(stream.add(token) for token in tokens), stream.finish()]


def test_a_character_appears_with_its_last_byte():
    assert shown(BYTES, "aé🙂b".encode()) == ["a", "", "é", "", "", "", "🙂", "b", ""]


def test_what_was_half_at_the_end_is_shown_at_the_end():
    pieces = shown(BYTES, "a🙂".encode()[:-1])
    assert pieces == ["a", "", "", "", REPLACEMENT]


def test_a_wrong_byte_does_not_swallow_what_follows():
    assert "".join(shown(BYTES, b"a\xffb\xe9c")) == f"a{REPLACEMENT}b{REPLACEMENT}c"


@pytest.mark.parametrize("seed", range(5))
def test_any_bytes_become_the_text_of_the_whole(seed):
    rng = np.random.default_rng(seed)
    # Starts and continuations of long characters come often, so that they meet in every way.
    alphabet = [*b"aZ \n", *range(0x80, 0x90), 0xC3, 0xE2, 0xF0, 0xED, 0xFF, 0x9F, 0x98]
    tokens = rng.choice(alphabet, 400).tolist()
    assert "".join(shown(BYTES, tokens)) == BYTES.decode(tokens)


@pytest.mark.parametrize("byte", [0xFF, 0x80, 0xF0])
def test_endless_wrong_bytes_are_shown_as_they_come_and_not_kept(byte):
    stream = TextStream(BYTES, [])
    pieces = [stream.add(byte) for _ in range(200)]
    assert "".join(pieces) == REPLACEMENT * 199
    assert len(stream._ids) < 30
    assert "".join(pieces) + stream.add(ord("x")) == REPLACEMENT * 200 + "x"


def test_what_stands_between_two_tokens_is_shown():
    numbers = NumberTokenizer(100)
    assert shown(numbers, [4, 5], context=[1, 2, 3]) == [" 4", " 5", ""]
    assert shown(numbers, [4, 5]) == ["4", " 5", ""]


def test_a_prompt_that_ends_in_half_a_character_is_completed():
    whole = "🙂".encode()
    stream = TextStream(BYTES, list(whole[:2]))
    assert "".join([stream.add(whole[2]), stream.add(whole[3]), stream.add(ord("a"))]).endswith("a")


def test_byte_pairs_of_gpt2_are_joined(gpt2_files):
    gpt2 = tokenizers.get("gpt2")
    tokens = gpt2.encode("Ein schöner Tag 🙂🙂 — naïve\n").tolist()
    pieces = shown(gpt2, tokens)
    assert "".join(pieces) == gpt2.decode(tokens)
    assert not any(REPLACEMENT in piece for piece in pieces)


def test_what_could_control_a_terminal_becomes_dots():
    assert printable("a\x1b[2Jb\tc\nd\r\x07é") == "a·[2Jb\tc\nd··é"


@pytest.mark.parametrize("count", range(12, 24))
def test_letting_go_of_wrong_bytes_does_not_cut_a_character(count):
    tokens = [*[0xFF] * count, *"🙂".encode(), ord("x")]
    assert "".join(shown(BYTES, tokens)) == REPLACEMENT * count + "🙂x"
