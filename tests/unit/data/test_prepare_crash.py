"""Preparing beside what a crash left, and beside what is no file."""

import os
import subprocess
import sys

import pytest

from harness.data.prepare import run_prepare
from harness.errors import ConfigError, DataError

TIMEOUT_S = 60
# Ends as a machine does that loses its power: without a word, at the second rename.
KILLED = """
import os, sys
from harness.data.prepare import run_prepare
real, renamed = os.rename, []
def rename(*arguments):
    renamed.append(arguments)
    if len(renamed) == 2:
        os._exit(9)
    real(*arguments)
os.rename = rename
run_prepare(sys.argv[1], sys.argv[2:])
"""


@pytest.fixture
def prepared(tmp_path, monkeypatch):
    """A folder to stand in, with text.txt and what was prepared of it."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "text.txt").write_text("the same words again and again\n" * 50)
    run_prepare("text.txt", ["out=p"])
    return tmp_path / "p"


@pytest.fixture
def killed(prepared):
    """The folder of an `overwrite=true` that was killed between its two renames; its files before."""
    before = content(prepared)
    command = [sys.executable, "-c", KILLED, "text.txt", "tokenizer=char"]
    found = subprocess.run([*command, "out=p", "overwrite=true"], timeout=TIMEOUT_S, check=False)
    assert found.returncode == 9 and not prepared.exists()
    return prepared, before


def content(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_the_next_call_brings_back_what_was_put_aside(killed, capsys):
    folder, before = killed
    run_prepare("text.txt", ["out=p"])
    assert capsys.readouterr().out.count("there is") == 3
    assert content(folder) == before
    assert not [name for name in os.listdir(folder.parent) if name.endswith(".old")]


def test_what_was_put_aside_is_not_replaced_without_overwrite(killed):
    folder, before = killed
    with pytest.raises(ConfigError) as refused:
        run_prepare("text.txt", ["tokenizer=char", "out=p"])
    assert refused.value.slug == "prepared-files-differ"
    assert content(folder) == before
    run_prepare("text.txt", ["tokenizer=char", "out=p", "overwrite=true"])
    assert content(folder) != before


def test_a_pipe_in_the_place_of_a_file_is_refused_and_not_waited_for(prepared):
    (prepared / "tokenizer.json").unlink()
    os.mkfifo(prepared / "tokenizer.json")
    command = [sys.executable, "-m", "harness.cli", "data", "prepare", "text.txt", "out=p"]
    found = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_S, check=False)
    assert found.returncode == DataError.exit_code
    assert found.stderr.startswith("error[data-file-not-regular]")
