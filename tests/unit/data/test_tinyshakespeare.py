"""The one source that is downloaded, and is checked before it is used."""

import hashlib
import os
import socket

import pytest

from harness.data import sources, tinyshakespeare
from harness.errors import DataError


@pytest.fixture
def tiny_source(tmp_path, monkeypatch):
    """A stand-in of 12 bytes, on disk, for the file on the network."""
    data = b"First Citiz\n"
    file = tmp_path / "server.txt"
    file.write_bytes(data)
    monkeypatch.setattr(tinyshakespeare, "URL", file.as_uri())
    monkeypatch.setattr(tinyshakespeare, "SIZE", len(data))
    monkeypatch.setattr(tinyshakespeare, "SHA256", hashlib.sha256(data).hexdigest())
    return file


def test_the_real_text_has_the_pinned_hash_and_is_read_from_its_path(shared_data, tmp_path):
    file = shared_data / "tinyshakespeare.txt"
    text = sources.read_text("tinyshakespeare", str(file), tmp_path)
    assert text.description == "tinyshakespeare: 1 file, 1,115,394 bytes"
    assert text.documents[0].data.startswith(b"First Citizen:\n")
    assert os.listdir(tmp_path) == []


def test_it_is_downloaded_once(tiny_source, tmp_path):
    cache = tmp_path / "deep" / "cache"
    first = sources.read_text("tinyshakespeare", None, cache)
    tiny_source.unlink()
    assert sources.read_text("tinyshakespeare", None, cache) == first
    assert first.documents[0].data == b"First Citiz\n"
    assert os.listdir(cache) == ["tinyshakespeare.txt"]


@pytest.mark.parametrize("answer", [b"", b"<html>", b"First Citiz\n and much more" * 1000])
def test_a_wrong_download_is_refused_and_not_kept(tiny_source, tmp_path, answer):
    tiny_source.write_bytes(answer)
    with pytest.raises(DataError, match="this is not tinyshakespeare"):
        sources.read_text("tinyshakespeare", None, tmp_path / "cache")
    assert not (tmp_path / "cache").exists()


def test_a_damaged_copy_in_the_cache_is_refused(tiny_source, tmp_path):
    (tmp_path / "tinyshakespeare.txt").write_bytes(b"First Citiz.")
    with pytest.raises(DataError, match="this is not tinyshakespeare") as caught:
        sources.read_text("tinyshakespeare", None, tmp_path)
    assert caught.value.facts["do"].startswith("delete ")


def test_another_text_at_data_path_is_refused(tmp_path):
    file = tmp_path / "mine.txt"
    file.write_text("mine")
    with pytest.raises(DataError, match="this is not tinyshakespeare") as caught:
        sources.read_text("tinyshakespeare", str(file), tmp_path)
    assert caught.value.facts["found"].startswith("4 bytes")
    assert "data.source=text" in caught.value.facts["do"]


def test_without_a_network_the_way_out_is_named(monkeypatch, tmp_path):
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with socket.socket() as bound_but_deaf:
        bound_but_deaf.bind(("127.0.0.1", 0))
        port = bound_but_deaf.getsockname()[1]
        monkeypatch.setattr(tinyshakespeare, "URL", f"http://127.0.0.1:{port}/input.txt")
        with pytest.raises(DataError, match="can't be downloaded") as caught:
            sources.read_text("tinyshakespeare", None, tmp_path)
    assert "data.path=FILE" in caught.value.facts["do"]
