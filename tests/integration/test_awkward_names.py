"""Names that no file can have, and paths that are no text: one error each, and nothing is lost."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from harness import cli, generate, train
from tests.integration.golden import make_generate

MODEL = make_generate.FOLDER / "generate.bin"
TOO_LONG = "a" * 300  # the names of a folder have 255 bytes at most
TIMEOUT_S = 60


def as_harness(*arguments):
    return cli.main(list(arguments))


def as_generate(*arguments):
    return generate.main()


def as_train(*arguments):
    return train.main()


NAMED = [
    (as_harness, ["verify", "{}", "state.bin"], 4, "model-missing"),
    (as_harness, ["verify", str(MODEL), "{}"], 4, ""),
    (as_harness, ["verify", "model.bin", "state.bin", "report=/{}/r.json"], 2, "verify-report"),
    (as_harness, ["verify", "write", "{}"], 7, "verify-folder-not-made"),
    (as_generate, ["model_from={}"], 4, "model-missing"),
    (as_generate, [f"model_from={MODEL}", "tokenizer={}"], 2, "tokenizer-not-found"),
    (as_generate, [f"model_from={MODEL}", "tokenizer=bytes", "out={}"], 7, "results-not-writable"),
    (as_train, ["experiment=micro_gpt2", "model_from={}"], 4, "model-missing"),
    (as_harness, ["data", "prepare", "{}", "out=p"], 3, "data-file"),
    (as_harness, ["data", "prepare", "text.txt", "out={}"], 7, "prepared-not-written"),
    (as_harness, ["data", "prepare", "text.txt", "out=p", "tokenizer={}.json"], 3, ""),
]


@pytest.mark.parametrize(("command", "arguments", "code", "slug"), NAMED)
def test_a_name_that_is_too_long_is_one_error(
    workplace, capfd, monkeypatch, command, arguments, code, slug
):
    given = [argument.format(TOO_LONG) for argument in arguments]
    monkeypatch.setattr(sys, "argv", ["harness", *given])
    found = command(*given)
    errors = capfd.readouterr().err
    assert found == code, errors
    assert errors.startswith(f"error[{slug}") and errors.count("error[") == 1


def test_a_model_whose_name_is_too_long_is_said_to_be_so(workplace, capfd):
    cli.main(["verify", TOO_LONG, "state.bin"])
    assert "File name too long" in capfd.readouterr().err


def test_a_user_that_there_is_not_is_no_traceback(workplace, capfd):
    assert cli.main(["verify", "~no-such-user-here/model.bin", "state.bin"]) == 4
    assert "error[model-missing]" in capfd.readouterr().err


@pytest.fixture
def no_text(workplace):
    """The golden model under a name with a byte that is no UTF-8."""
    path = os.fsdecode(b"bad\xff.bin")
    try:
        shutil.copy(MODEL, path)
    except OSError:
        pytest.skip("this file system takes names in UTF-8 alone")
    return path


def test_results_of_a_model_whose_path_is_no_text_are_kept(no_text, capfd, monkeypatch):
    arguments = ["tokenizer=bytes", "prompt=The", "length=3", "temperature=0", "out=r.jsonl"]
    monkeypatch.setattr(sys, "argv", ["generate", f'model_from="{no_text}"', *arguments])
    assert generate.main() == 0, capfd.readouterr().err
    record = json.loads(Path("r.jsonl").read_text(encoding="utf-8"))
    assert record["model"] == no_text and len(record["tokens"]) == 3


def test_a_path_that_is_no_text_is_printed_to_a_strict_output(no_text, workplace):
    sizes = ["layers=1", "heads=1", "channels=2", "positions=4", "vocab_size=5"]
    folder = os.fsdecode(b"state\xff")
    found = subprocess.run(
        [
            *(sys.executable, "-m", "harness.cli", "verify", "write", folder),
            *(f"model.{size}" for size in sizes),
        ],
        capture_output=True,
        env={**os.environ, "PYTHONIOENCODING": "utf-8:strict"},
        timeout=TIMEOUT_S,
    )
    assert (found.returncode, found.stderr) == (0, b"")
    assert b"state\\udcff/model.bin" in found.stdout
    assert sorted(os.listdir(folder)) == ["debug_state.bin", "model.bin"]
