"""Metrics are whole lines of strict JSON, whatever crashed and whatever disk was full."""

import errno
import io
import json
import os

import numpy as np
import pytest

from harness.errors import DataError
from harness.run import metrics
from harness.run.metrics import MetricsFile


@pytest.fixture
def path(tmp_path):
    return tmp_path / "metrics.jsonl"


def steps(path):
    return [record["step"] for record in metrics.read(path)]


def test_what_was_written_is_read_again(path):
    records = [{"step": 1, "loss": 3.5, "ops": ["a", {"b": None}]}, {"step": 2, "ok": True}]
    with MetricsFile(path) as file:
        for record in records:
            file.write(record)
    assert metrics.read(path) == records
    assert file.lost_lines == 0


def test_a_line_is_in_the_file_as_soon_as_write_returns(path):
    file = MetricsFile(path)
    file.write({"step": 1})
    assert path.read_bytes() == b'{"step":1}\n'
    file.close()


def test_nan_and_infinity_are_strict_json_and_numbers_when_read(path):
    with MetricsFile(path) as file:
        file.write({"a": float("nan"), "b": [np.float32("inf"), -np.inf], "c": np.int64(3)})

    def refuse(constant):
        pytest.fail(constant)

    line = json.loads(path.read_text(), parse_constant=refuse)
    assert line == {"a": "nan", "b": ["inf", "-inf"], "c": 3}
    (record,) = metrics.read(path)
    assert record["a"] != record["a"]
    assert record["b"] == [np.inf, -np.inf]


@pytest.mark.parametrize("torn", [b'{"step":3,"lo', b"{", b"\0" * 5000, b'{"x":"' + b"y" * 200_000])
def test_a_torn_last_line_is_left_out_and_cut_off(path, torn):
    good = b'{"step":1}\n{"step":2}\n'
    path.write_bytes(good + torn)
    assert steps(path) == [1, 2]
    MetricsFile(path).close()
    assert path.read_bytes() == good


def test_a_file_of_one_torn_line_becomes_empty(path):
    path.write_bytes(b'{"step":1')
    with MetricsFile(path) as file:
        file.write({"step": 9})
    assert steps(path) == [9]


def test_resuming_drops_what_came_after_the_checkpoint(path):
    with MetricsFile(path) as file:
        for step in range(1, 8):
            file.write({"step": step})
            file.write({"note": f"after {step}"})
    with MetricsFile(path) as file:
        assert file.truncate_after(5) == 4
        file.write({"step": 6, "again": True})
        assert file.truncate_after(6) == 0
    found = metrics.read(path)
    assert found[-3:] == [{"step": 5}, {"note": "after 5"}, {"step": 6, "again": True}]


def test_resuming_from_the_beginning_drops_every_step(path):
    with MetricsFile(path) as file:
        file.write({"model": "gpt2"})
        file.write({"step": 1})
        file.truncate_after(0)
    assert metrics.read(path) == [{"model": "gpt2"}]


def test_a_damaged_line_in_the_middle_is_named(path):
    path.write_bytes(b'{"step":1}\ngarbage\n{"step":2}\n')
    with pytest.raises(DataError) as caught:
        metrics.read(path)
    assert caught.value.headline.endswith("metrics.jsonl:2")


def test_metrics_that_are_not_there_are_a_data_error(path):
    with pytest.raises(DataError):
        metrics.read(path)


class Disk:
    """os.write that fails, after a part of the line, as often as it is told to."""

    def __init__(self, monkeypatch):
        self.failures = 0
        self.write = os.write
        monkeypatch.setattr(os, "write", self)

    def __call__(self, descriptor, data):
        if self.failures and len(data) > 4:
            return self.write(descriptor, data[:4])
        if self.failures:
            self.failures -= 1
            raise OSError(errno.ENOSPC, "No space left on device")
        return self.write(descriptor, data)


def test_a_full_disk_loses_lines_warns_once_and_tears_nothing(path, monkeypatch):
    disk, told = Disk(monkeypatch), []
    file = MetricsFile(path, told.append)
    file.write({"step": 1})
    disk.failures = 2
    file.write({"a": 3})  # eight bytes and a newline: half of it is written, then the disk is full
    file.write({"a": 4})
    disk.failures = 0
    file.write({"step": 5})
    file.close()
    assert steps(path) == [1, 5]
    assert file.lost_lines == 2
    assert len(told) == 1
    assert "No space left" in told[0]


def test_a_line_torn_by_a_disk_that_can_not_even_cut_is_repaired_later(path, monkeypatch):
    disk, told = Disk(monkeypatch), []
    file = MetricsFile(path, told.append)
    with monkeypatch.context() as patch:

        def refuse(descriptor, size):
            raise OSError(errno.EIO, "Input/output error")

        patch.setattr(os, "ftruncate", refuse)
        disk.failures = 1
        file.write({"a": 3})
        file.write({"a": 4})
    assert path.read_bytes() == b'{"a"'
    disk.failures = 0
    file.write({"step": 5})
    file.close()
    assert steps(path) == [5]
    assert file.lost_lines == 2


def test_a_file_that_can_not_be_opened_does_not_stop_the_run(tmp_path):
    told = []
    folder = tmp_path / "later"
    file = MetricsFile(folder / "metrics.jsonl", told.append)
    file.write({"step": 1})
    assert file.truncate_after(0) == 0
    folder.mkdir()
    file.write({"step": 2})
    file.close()
    assert steps(folder / "metrics.jsonl") == [2]
    assert (file.lost_lines, len(told)) == (1, 1)


def test_the_warning_goes_to_stderr_and_a_closed_one_is_no_matter(tmp_path, capsys, monkeypatch):
    MetricsFile(tmp_path / "none" / "m.jsonl").close()
    assert "training goes on" in capsys.readouterr().err
    closed = io.StringIO()
    closed.close()
    monkeypatch.setattr("sys.stderr", closed)
    MetricsFile(tmp_path / "none" / "m.jsonl").close()
