"""Damaged and hostile files of every format: one typed error, in bounded time and memory.

A sample of what `python -m experiments.bad_files` runs 10,000 times for each format.
"""

import pytest

from experiments.bad_files import campaign, child, formats
from experiments.bad_files.formats import FORMATS, Format, itself

COUNT = 60
SEED = 20_240_326  # not the seed of the recorded run


@pytest.mark.parametrize("name", FORMATS)
def test_a_damaged_file_is_refused_with_one_typed_error_or_read(name):
    tally = campaign.run(name, SEED, COUNT)
    assert tally.faults == []
    assert sum(tally.outcomes.values()) == COUNT
    assert tally.outcomes["refused"] >= COUNT // 2, "mutants that damage nothing prove nothing"


def outcome_of(read, tmp_path):
    (tmp_path / "file").write_bytes(b"content")
    form = Format(lambda folder: folder / "file", read, itself)
    return child._outcome(form, tmp_path / "file", unchanged=False)["outcome"]


def test_a_reader_that_breaks_the_promise_is_noticed(tmp_path, monkeypatch):
    import signal

    def untyped(path):
        raise KeyError("weights")

    def slow(path):
        while True:
            pass

    def greedy(path):
        raise MemoryError("Unable to allocate 1 TiB")

    monkeypatch.setattr(child, "TIME_S", 0.05)
    before = signal.signal(signal.SIGALRM, child._too_slow)
    try:
        assert outcome_of(untyped, tmp_path) == "untyped"
        assert outcome_of(slow, tmp_path) == "too slow"
        assert outcome_of(greedy, tmp_path) == "out of memory"
        assert outcome_of(lambda path: path.read_bytes(), tmp_path) == "read"
    finally:
        signal.signal(signal.SIGALRM, before)


def test_a_reader_that_ends_its_process_is_noticed(monkeypatch):
    """The child is another process: what it dies of reaches the tally."""
    import sys

    broken = "import os, signal; os.kill(os.getpid(), signal.SIGSEGV)"
    real = campaign.subprocess.run

    def dies(command, **options):
        return real([sys.executable, "-c", broken], **options)

    monkeypatch.setattr(campaign.subprocess, "run", dies)
    tally = campaign.run("llmc_tokens", 0, 1)
    assert tally.outcomes["crashed"] == 1
    assert tally.faults[0]["signal"] == 11


def test_every_format_that_is_read_from_files_is_among_them():
    wanted = {"llmc_model_fp32", "llmc_debug_state", "llmc_tokens", "huggingface", "safetensors"}
    assert wanted | {"adapter", "tokenizer", "checkpoint"} <= set(formats.FORMATS)
