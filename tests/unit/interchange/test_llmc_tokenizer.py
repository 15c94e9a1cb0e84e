"""llm.c's tokenizer files."""

import hashlib
import os
import tracemalloc

import numpy as np
import pytest

from harness import tokenizers
from harness.errors import DataError, HarnessError
from harness.interchange.llmc.tokenizer import (
    LlmcTokenizer,
    pieces_of,
    read_llmc_tokenizer,
    write_llmc_tokenizer,
)
from tests.unit.interchange import llmc_by_hand as by_hand
from tests.unit.interchange.llmc_by_hand import changed

PIECES = [b"a", b"\0", b"\xf0\x9f", b"\x99\x82", b" " * 255, b"<|endoftext|>"]
WHOLE = by_hand.tokenizer(PIECES, 2, 6, 5)


@pytest.fixture
def write(tmp_path):
    def write(data):
        path = tmp_path / "tokenizer.bin"
        path.write_bytes(data)
        return path

    return write


def test_a_file_written_by_hand_is_read(write):
    found = read_llmc_tokenizer(write(WHOLE))
    assert list(found.pieces) == PIECES
    assert (found.vocab_size, found.end_of_text, found.version) == (6, 5, 2)
    assert found.recognised() is None


def test_it_decodes_across_tokens_that_are_half_a_character(write):
    found = read_llmc_tokenizer(write(WHOLE))
    assert found.decode([0, 2, 3, 1, 5]) == "a\N{SLIGHTLY SMILING FACE}\0<|endoftext|>"
    assert found.decode(np.array([2, 0])) == "\N{REPLACEMENT CHARACTER}a"
    assert found.decode([]) == ""
    with pytest.raises(DataError, match="token id 6 is outside the vocabulary"):
        found.decode([6])


def test_it_says_that_it_cannot_encode(write):
    with pytest.raises(DataError, match="can only decode") as caught:
        read_llmc_tokenizer(write(WHOLE)).encode("text", where="a.txt")
    assert caught.value.facts["where"] == "a.txt"


def test_a_round_trip_gives_the_same_bytes(write, tmp_path):
    found = read_llmc_tokenizer(write(WHOLE))
    write_llmc_tokenizer(tmp_path / "again.bin", found.pieces, found.end_of_text)
    assert (tmp_path / "again.bin").read_bytes() == WHOLE


def test_gpt2_s_own_file_goes_round_in_both_versions(write, tmp_path, gpt2_files):
    gpt2 = tokenizers.get("gpt2")
    pieces = pieces_of(gpt2)
    assert len(pieces) == 50_257
    assert pieces[188] == b"\0"
    assert max(map(len, pieces)) == 128
    assert pieces[50_256] == b"<|endoftext|>"
    assert sum(not is_text(piece) for piece in pieces) == 344
    for version, slots in ((1, (1, 50_257)), (2, (2, 50_257, 50_256))):
        path = write(by_hand.tokenizer(pieces, *slots))
        found = read_llmc_tokenizer(path)
        assert (found.version, found.end_of_text) == (version, 50_256)
        assert found.recognised() == gpt2
        write_llmc_tokenizer(tmp_path / "again.bin", found.pieces, found.end_of_text, version)
        assert (tmp_path / "again.bin").read_bytes() == path.read_bytes()


def is_text(piece):
    try:
        piece.decode()
    except UnicodeDecodeError:
        return False
    return True


def test_the_pieces_of_a_tokenizer_are_what_its_ids_decode_to(gpt2_files):
    text = "naïve — 東京\n"
    for tokenizer in (tokenizers.get(name, text) for name in ("bytes", "char", "gpt2")):
        pieces = pieces_of(tokenizer)
        assert len(pieces) == tokenizer.vocab_size
        assert b"".join(pieces[i] for i in tokenizer.encode(text)) == text.encode()


def test_pieces_that_a_tokenizer_names_itself_are_taken():
    assert pieces_of(LlmcTokenizer((b"x", b"y"), 0)) == [b"x", b"y"]


def test_a_tokenizer_without_pieces_is_refused():
    class Strange:
        name, vocab_size = "strange", 3

    with pytest.raises(DataError, match="strange does not say"):
        pieces_of(Strange())


@pytest.mark.parametrize(("pieces", "first"), [([b"a", b"\n"], 1), ([b"a", b"b"], 0)])
def test_a_vocabulary_without_end_of_text_names_the_newline_or_the_first(tmp_path, pieces, first):
    write_llmc_tokenizer(tmp_path / "t.bin", pieces, None)
    assert (tmp_path / "t.bin").read_bytes() == by_hand.tokenizer(pieces, 2, 2, first)


def test_the_bytes_are_recognised(tmp_path):
    tokenizer = tokenizers.get("bytes")
    write_llmc_tokenizer(tmp_path / "t.bin", pieces_of(tokenizer), tokenizer.end_of_text)
    assert read_llmc_tokenizer(tmp_path / "t.bin").recognised() == tokenizer


@pytest.mark.parametrize(("piece", "found"), [(b"", "0 bytes"), (b"x" * 256, "256 bytes")])
def test_a_piece_that_one_byte_cannot_measure_is_refused(tmp_path, piece, found):
    with pytest.raises(DataError, match="can't hold token 1") as caught:
        write_llmc_tokenizer(tmp_path / "t.bin", [b"a", piece], 0)
    assert caught.value.facts["found"] == found
    with pytest.raises(DataError, match="outside the vocabulary"):
        write_llmc_tokenizer(tmp_path / "t.bin", [b"a"], 1)
    assert os.listdir(tmp_path) == []


DAMAGED = {
    "empty": (b"", "0 bytes in all"),
    "header cut": (WHOLE[:1020], "1,020 bytes"),
    "header alone": (WHOLE[:1024], "1,024 bytes"),
    "a model": (changed(WHOLE, 0, "<i", 20240326), "a model"),
    "version": (changed(WHOLE, 4, "<i", 3), "version 3"),
    "version 1 of others": (changed(WHOLE, 4, "<i", 1), "6 tokens, 5"),
    "no tokens": (changed(WHOLE, 8, "<i", 0), "0"),
    "negative": (changed(WHOLE, 8, "<i", -6), "-6"),
    "too many": (changed(WHOLE, 8, "<i", 2**31 - 1), "2,147,483,647"),
    "one token more": (changed(WHOLE, 8, "<i", 7), "1,304 bytes"),
    "one token less": (changed(changed(WHOLE, 8, "<i", 5), 12, "<i", 0), "1,304 bytes"),
    "end of text beyond": (changed(WHOLE, 12, "<i", 6), "id 6"),
    "end of text negative": (changed(WHOLE, 12, "<i", -1), "id -1"),
    "unused slot": (changed(WHOLE, 16, "<i", 5), "5"),
    "empty piece": (changed(WHOLE, 1024, "<B", 0), "0 bytes"),
    "long piece": (changed(WHOLE, 1024, "<B", 255), "1,304 bytes"),
    "last byte cut": (WHOLE[:-1], "1,303 bytes"),
    "a byte more": (WHOLE + b"x", "1,305 bytes"),
}


@pytest.mark.parametrize(("data", "found"), DAMAGED.values(), ids=DAMAGED)
def test_a_damaged_file_is_a_data_error_with_what_was_found(write, data, found):
    with pytest.raises(DataError) as caught:
        read_llmc_tokenizer(write(data))
    assert caught.value.slug == "tokenizer-file-damaged"
    assert found in caught.value.facts["found"]


@pytest.mark.parametrize("header", [(2, 6, 5), (1, 50_257)])
def test_a_file_far_too_large_is_refused_before_it_is_read(write, header):
    path = write(by_hand.header(20240328, *header))
    os.truncate(path, 1 << 32)  # takes no room on the disk
    tracemalloc.start()
    try:
        with pytest.raises(DataError, match="wrong size"):
            read_llmc_tokenizer(path)
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
    finally:
        tracemalloc.stop()


def test_a_missing_file_is_a_data_error(tmp_path):
    with pytest.raises(DataError, match="no such file"):
        read_llmc_tokenizer(tmp_path / "none.bin")


def test_a_file_cut_anywhere_is_refused(write):
    for length in (*range(0, 1024, 93), *range(1024, len(WHOLE), 3)):
        with pytest.raises(DataError):
            read_llmc_tokenizer(write(WHOLE[:length]))


def test_a_mutant_is_read_or_refused_with_one_typed_error(write):
    rng = np.random.default_rng(0)
    refused = 0
    for _ in range(200):
        byte = int(rng.integers(0, 20 if rng.random() < 0.5 else len(WHOLE)))
        try:
            read_llmc_tokenizer(write(changed(WHOLE, byte, "<B", int(rng.integers(0, 256)))))
        except HarnessError:
            refused += 1
    assert refused > 80


def test_the_hash_is_that_of_every_tokenizer():
    expected = hashlib.sha256(b"llmc\0" + b"\1\0\0\0x" + b"\2\0\0\0yz").hexdigest()
    assert LlmcTokenizer((b"x", b"yz"), 0).sha256 == expected
