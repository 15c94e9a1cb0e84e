"""Reading what may be missing, hostile or changing; writing whole files or none."""

import os
import subprocess
import sys

import pytest

from harness.data import files
from harness.errors import DataError, ResourceError


def test_a_folder_gives_its_visible_files_sorted(tmp_path):
    for name in ["b.txt", "a/z.txt", "a/c.md", ".hidden", ".git/config"]:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("x")
    found = [str(path.relative_to(tmp_path)) for path in files.find_files(str(tmp_path))]
    assert found == ["a/c.md", "a/z.txt", "b.txt"]
    found = [path.name for path in files.find_files(str(tmp_path), suffix=".txt")]
    assert found == ["z.txt", "b.txt"]


def test_a_glob_gives_its_files_sorted_and_no_folders(tmp_path):
    for name in ["2.bin", "10.bin", "1.bin"]:
        (tmp_path / name).write_text("x")
    (tmp_path / "folder.bin").mkdir()
    found = [path.name for path in files.find_files(f"{tmp_path}/*.bin")]
    assert found == ["1.bin", "10.bin", "2.bin"]


def test_a_name_that_exists_is_not_taken_as_a_glob(tmp_path):
    file = tmp_path / "a[1].txt"
    file.write_text("x")
    assert files.find_files(str(file)) == [file]


def test_a_glob_that_matches_nothing_is_refused(tmp_path):
    with pytest.raises(DataError, match="no file matches the pattern") as caught:
        files.find_files(f"{tmp_path}/*.bin")
    assert "*.bin" in caught.value.headline


def test_a_folder_without_files_is_refused(tmp_path):
    (tmp_path / "deeper").mkdir()
    with pytest.raises(DataError, match="folder has no data files"):
        files.find_files(str(tmp_path))


def test_a_missing_file_is_refused_with_its_whole_path(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DataError, match=r"no such file: text\.txt") as caught:
        files.read_bytes(files.find_files("text.txt")[0])
    assert caught.value.facts["where"] == str(tmp_path / "text.txt")


def test_a_folder_in_the_place_of_a_file_is_refused(tmp_path):
    with pytest.raises(DataError, match="a folder, not a file"):
        files.read_bytes(tmp_path)


def test_a_named_pipe_is_refused_without_waiting(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(DataError, match="not a regular file"):
        files.read_bytes(tmp_path / "pipe")


@pytest.mark.parametrize("name", ["a\0b", "x" * 5000])
def test_an_impossible_name_is_refused(tmp_path, name):
    with pytest.raises(DataError, match="can't be read"):
        files.read_bytes(tmp_path / name)


def test_a_file_that_shrinks_is_an_error_with_its_counts(tmp_path):
    file = tmp_path / "text"
    file.write_bytes(b"0123456789")
    with (
        pytest.raises(DataError, match="became shorter") as caught,
        files.open_file(file) as (opened, size),
    ):
        os.truncate(file, 4)
        files.read_into(memoryview(bytearray(size)), opened, file)
    assert caught.value.facts["expected"] == "10 more bytes"
    assert caught.value.facts["found"] == "4"


def test_a_file_that_grows_is_an_error(tmp_path, monkeypatch):
    file = tmp_path / "text"
    file.write_bytes(b"0123456789")
    read_into = files.read_into

    def read_while_another_writes(buffer, opened, path):
        read_into(buffer, opened, path)
        with open(path, "ab") as other:
            other.write(b"more")

    monkeypatch.setattr(files, "read_into", read_while_another_writes)
    with pytest.raises(DataError, match="became longer"):
        files.read_bytes(file)


@pytest.mark.skipif(sys.platform != "linux", reason="RLIMIT_AS binds on Linux only")
def test_a_file_larger_than_memory_is_a_resource_error(tmp_path):
    file = tmp_path / "sparse"
    file.touch()
    os.truncate(file, 8 << 30)
    code = (
        "import pathlib, resource, sys; from harness.data import files\n"
        "from harness.errors import ResourceError\n"
        "resource.setrlimit(resource.RLIMIT_AS, (4 << 30, 4 << 30))\n"
        "try: files.read_bytes(pathlib.Path(sys.argv[1]))\n"
        "except ResourceError as error: print(error.slug)"
    )
    command = [sys.executable, "-c", code, str(file)]
    answer = subprocess.run(command, capture_output=True, text=True)
    assert answer.stdout == "data-file-too-large\n", answer.stderr


def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(tmp_path):
    file = tmp_path / "kept"
    file.write_bytes(b"old")

    def chunks():
        yield b"new"
        raise OSError(28, "No space left on device")

    with pytest.raises(ResourceError, match="can't be written") as caught:
        files.write_atomically(file, chunks())
    assert "No space left" in caught.value.facts["found"]
    assert file.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["kept"]


def test_a_write_replaces_the_file(tmp_path):
    file = tmp_path / "kept"
    file.write_bytes(b"old")
    with open(file, "rb") as reader:
        files.write_atomically(file, [b"new", b"er"])
        assert reader.read() == b"old"  # whoever had it open sees no half of the new one
    assert file.read_bytes() == b"newer"
    assert os.listdir(tmp_path) == ["kept"]
