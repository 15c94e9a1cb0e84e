"""Where text comes from."""

import sysconfig
from pathlib import Path

import pytest

from harness.data.sources import read_text
from harness.errors import ConfigError, DataError


def test_stdlib_is_the_running_python_s_top_level_modules(tmp_path):
    text = read_text("stdlib", None, tmp_path)
    names = [Path(document.name).name for document in text.documents]
    assert names == sorted(names)
    assert {"abc.py", "argparse.py", "typing.py"} <= set(names)
    folder = Path(sysconfig.get_path("stdlib"))
    assert all(Path(document.name).parent == folder for document in text.documents)
    argparse = next(d for d in text.documents if d.name.endswith("/argparse.py"))
    assert argparse.data == (folder / "argparse.py").read_bytes()


def test_bytes_are_kept_as_they_are(tmp_path):
    data = b"\xef\xbb\xbfa\f\r\nb\rc\n\n"
    (tmp_path / "a.txt").write_bytes(data)
    text = read_text("text", str(tmp_path / "a.txt"), tmp_path)
    assert [document.data for document in text.documents] == [data]
    assert text.description == f"text: 1 file, {len(data)} bytes"


def test_a_folder_leaves_out_binary_files_and_says_so(tmp_path):
    (tmp_path / "a.txt").write_bytes(b"text")
    (tmp_path / "b.png").write_bytes(b"\x89PNG\0")
    (tmp_path / "c.txt").write_bytes(b"")
    text = read_text("text", str(tmp_path), tmp_path)
    assert [document.data for document in text.documents] == [b"text"]
    assert text.description == "text: 1 file, 4 bytes (1 binary left out)"


def test_a_folder_of_binary_files_alone_is_refused(tmp_path):
    (tmp_path / "b.png").write_bytes(b"\x89PNG\0")
    with pytest.raises(DataError, match="there is no text in") as caught:
        read_text("text", str(tmp_path), tmp_path)
    assert caught.value.facts["found"] == "1 binary files"


def test_a_glob_gives_its_documents_in_sorted_order(tmp_path):
    for name in ["b.txt", "a.txt", "c.md"]:
        (tmp_path / name).write_text(name)
    text = read_text("text", f"{tmp_path}/*.txt", tmp_path)
    assert [document.data for document in text.documents] == [b"a.txt", b"b.txt"]


def test_an_empty_file_is_refused(tmp_path):
    (tmp_path / "empty.txt").touch()
    with pytest.raises(DataError, match="there is no text in") as caught:
        read_text("text", str(tmp_path / "empty.txt"), tmp_path)
    assert caught.value.facts["found"] == "0 bytes"


@pytest.mark.parametrize(
    ("path", "headline"),
    [
        ("missing.txt", "no such file"),
        ("missing/*.txt", "no file matches the pattern"),
        ("folder", "folder has no data files"),
    ],
)
def test_a_path_that_leads_nowhere_is_refused(tmp_path, path, headline):
    (tmp_path / "folder").mkdir()
    with pytest.raises(DataError, match=headline):
        read_text("text", str(tmp_path / path), tmp_path)


def test_an_unknown_source_is_refused_with_the_nearest(tmp_path):
    with pytest.raises(ConfigError, match="no data source is called 'stdlb'") as caught:
        read_text("stdlb", None, tmp_path)
    assert caught.value.facts["do"] == "data.source=stdlib"


@pytest.mark.parametrize("source", ["text", "tokens"])
def test_a_source_that_needs_a_path_says_so(tmp_path, source):
    with pytest.raises(ConfigError, match=f"data.source={source} needs a path"):
        read_text(source, None, tmp_path)


def test_a_path_that_would_not_be_read_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="reads no path"):
        read_text("stdlib", "mine.txt", tmp_path)
