"""Token ids on disk, in llm.c's format."""

import os
import struct

import numpy as np
import pytest

from harness.data import read_token_file, token_files, write_token_file
from harness.errors import DataError


@pytest.fixture
def file(tmp_path):
    """Three tokens, written by hand from the description of the format."""
    file = tmp_path / "tokens.bin"
    file.write_bytes(raw(tokens=[0, 50256, 65535]))
    return file


def raw(magic=20240520, version=1, count=3, tokens=(1, 2, 3)):
    return struct.pack("<256i", magic, version, count, *[0] * 253) + struct.pack(
        f"<{len(tokens)}H", *tokens
    )


def test_a_file_written_by_hand_is_read(file):
    tokens = read_token_file(file)
    assert tokens.dtype == np.uint16
    assert tokens.tolist() == [0, 50256, 65535]


@pytest.mark.parametrize("dtype", [np.uint16, np.int32, np.int64, ">u2"])
def test_what_is_written_is_byte_for_byte_the_format(file, tmp_path, dtype):
    write_token_file(tmp_path / "again.bin", np.array([0, 50256, 65535]).astype(dtype))
    assert (tmp_path / "again.bin").read_bytes() == file.read_bytes()
    assert sorted(os.listdir(tmp_path)) == ["again.bin", "tokens.bin"]


def test_no_tokens_make_an_empty_file(tmp_path):
    write_token_file(tmp_path / "none.bin", [])
    assert (tmp_path / "none.bin").stat().st_size == 1024
    assert len(read_token_file(tmp_path / "none.bin")) == 0


def test_a_strided_array_is_written_in_its_order(tmp_path):
    write_token_file(tmp_path / "odd.bin", np.arange(10)[::-3])
    assert read_token_file(tmp_path / "odd.bin").tolist() == [9, 6, 3, 0]


@pytest.mark.parametrize(("ids", "bad"), [([1, 65536], 65536), ([-1], -1)])
def test_an_id_that_does_not_fit_is_refused_and_nothing_is_written(tmp_path, ids, bad):
    with pytest.raises(DataError, match=f"token id {bad} is outside") as caught:
        write_token_file(tmp_path / "x.bin", ids)
    assert caught.value.facts["position"] == str(len(ids) - 1)
    assert os.listdir(tmp_path) == []


def test_more_tokens_than_llm_c_can_seek_to_are_refused(tmp_path):
    many = np.broadcast_to(np.uint16(0), (2**30,))  # 2 GiB of tokens in two bytes
    with pytest.raises(DataError, match="too many tokens for one file"):
        write_token_file(tmp_path / "x.bin", many)


@pytest.mark.parametrize(
    ("data", "headline", "found"),
    [
        (b"", "not a file of token ids", "0 bytes in all"),
        (raw()[:1023], "not a file of token ids", "1,023 bytes in all"),
        (raw(magic=20240522), "not a file of token ids", "20240522"),
        (raw(version=2), "unknown version", "version 2"),
        (raw(count=-1), "wrong size", "-1 tokens"),
        (raw(count=2), "wrong size", "1,030 bytes"),
        (raw(count=4), "wrong size", "1,030 bytes"),
        (raw(count=2**31 - 1), "wrong size", "1,030 bytes"),
        (raw() + b"\0", "wrong size", "1,031 bytes"),
        (raw()[:-1], "wrong size", "1,029 bytes"),
    ],
)
def test_a_damaged_file_is_refused_with_what_was_found(tmp_path, data, headline, found):
    (tmp_path / "bad.bin").write_bytes(data)
    with pytest.raises(DataError, match=headline) as caught:
        read_token_file(tmp_path / "bad.bin")
    assert caught.value.facts["found"] == found


def test_a_missing_file_is_refused(tmp_path):
    with pytest.raises(DataError, match="no such file"):
        read_token_file(tmp_path / "missing.bin")


def test_a_file_that_changes_between_its_two_readings_is_refused(file, monkeypatch):
    count = token_files._count

    def count_then_change(path):
        before = count(path)
        path.write_bytes(raw(count=2, tokens=[1, 2]))
        return before

    monkeypatch.setattr(token_files, "_count", count_then_change)
    with pytest.raises(DataError, match="changed while it was read"):
        read_token_file(file)


def test_every_mutant_of_a_file_is_read_or_is_a_data_error(tmp_path):
    rng = np.random.default_rng(0)
    good = np.frombuffer(raw(tokens=[7, 8, 9]), dtype=np.uint8)
    file = tmp_path / "mutant.bin"
    refused = 0
    for _ in range(500):
        mutant = good.copy()
        where = rng.integers(0, 16, size=rng.integers(1, 4))  # where the header says something
        mutant[where] = rng.integers(0, 256, size=len(where))
        end = len(mutant) if rng.random() < 0.7 else rng.integers(0, len(mutant))
        file.write_bytes(mutant[:end].tobytes())
        try:
            assert read_token_file(file).tolist() == [7, 8, 9]
        except DataError:
            refused += 1
    assert refused > 300
