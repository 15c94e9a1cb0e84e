"""What a run says of its steps, and what it writes down of each."""

import io
import json

import pytest

from harness.plugins.compile_clock import WORTH_A_LINE_S
from harness.run.log import RunLog
from harness.run.metrics import MetricsFile
from harness.run.progress import Reporter
from harness.run.step_queue import Finished
from harness.training.trainer import StepResult

STEPS, EVERY = 10, 4


class Heard:
    """A log, the lines that it said and the records that it wrote. clock_s: what time it is."""

    def __init__(self, trainer, path):
        self._stream, self._path = io.StringIO(), path
        self.log = RunLog(Reporter(STEPS, self._stream), MetricsFile(path), trainer, STEPS, EVERY)

    @property
    def lines(self):
        return self._stream.getvalue().splitlines()

    @property
    def records(self):
        return [json.loads(line) for line in self._path.read_text().splitlines()]


@pytest.fixture
def heard(make_trainer, tmp_path):
    return Heard(make_trainer(), tmp_path / "metrics.jsonl")


@pytest.fixture
def clock(monkeypatch):
    """clock(s): it is so many seconds past the start now."""
    now = [0.0]
    monkeypatch.setattr("harness.run.log.time.perf_counter", lambda: now[0])
    return lambda seconds: now.__setitem__(0, seconds)


def finished(step, compiled=None, skipped=False):
    return Finished(step, 1e-3, StepResult(2.5, 0.5, skipped), 0.25, compiled or {})


def test_each_step_is_a_record_and_every_fourth_and_the_last_a_line(heard):
    for step in range(1, STEPS + 1):
        heard.log.step(finished(step), 0.0)
    assert [record["step"] for record in heard.records] == list(range(1, STEPS + 1))
    assert [line.split()[1] for line in heard.lines] == ["4/10", "8/10", "10/10"]


def test_the_time_left_is_that_of_the_steps_since_the_start_without_compiling(heard, clock):
    heard.log.start_clock(2)
    clock(30.0)
    heard.log.step(finished(4), compiling_s=20.0)
    assert heard.records[0]["eta_s"] == 6 * (30 - 20) / 2


def test_what_compiling_took_is_written_down_and_said_where_it_is_worth_a_line(heard):
    heard.log.step(finished(1, {"a": WORTH_A_LINE_S, "b": WORTH_A_LINE_S / 2}), 0.0)
    kinds = [record["kind"] for record in heard.records]
    assert kinds == ["compiling", "compiling", "step"]
    assert len(heard.lines) == 1 and "kernels of a in" in heard.lines[0]


def test_a_skipped_step_is_said_whether_or_not_its_line_is_due(heard):
    heard.log.step(finished(1, skipped=True), 0.0)
    assert heard.records[0]["skipped"] and "step 1 is not finite" in heard.lines[0]


def test_the_records_after_the_step_that_is_gone_on_from_are_dropped(heard):
    for step in (1, 2, 3):
        heard.log.record("validation", step, loss=1.0)
    heard.log.drop_records_after(2)
    assert [record["step"] for record in heard.records] == [1, 2]
