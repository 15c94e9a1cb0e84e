"""The line of a step reads the same for a tiny model and a huge one, and output can't stop a run."""

import dataclasses
import io
import os
import pty
import subprocess
import sys
from contextlib import suppress

import pytest

from harness.run.progress import Reporter, StepRecord, step_line

RECORD = StepRecord(120, 2000, 3.412, 0.81, 3e-4, 41.0, 18_700.0, 0.123, 72.0)
NAN, INF = float("nan"), float("inf")


def line(**changes):
    return step_line(dataclasses.replace(RECORD, **changes))


def test_the_line_reads_as_documented():
    assert line() == (
        "step 120/2000  loss 3.412  grad 0.81  lr 3.0e-04  41 ms  18.7k tok/s  mfu 12.3%  eta 1m12s"
    )


@pytest.mark.parametrize(
    ("field", "value", "text"),
    [
        ("loss", 11.0004, "loss 11.000 "),
        ("loss", 0.0, "loss 0.000 "),
        ("loss", 1.234e-7, "loss 1.23e-07 "),
        ("loss", 123456.0, "loss 1.23e+05 "),
        ("loss", NAN, "loss nan "),
        ("loss", INF, "loss inf "),
        ("grad_norm", 0.0, "grad 0.00 "),
        ("grad_norm", 0.00012, "grad 1.2e-04 "),
        ("grad_norm", 123.4, "grad 123 "),
        ("grad_norm", 1.5e9, "grad 1.5e+09 "),
        ("grad_norm", INF, "grad inf "),
        ("grad_norm", None, "grad n/a "),
        ("learning_rate", 0.0, "lr 0.0e+00 "),
        ("step_ms", 0.0123, " 0.012 ms "),
        ("step_ms", 9.94, " 9.9 ms "),
        ("step_ms", 9.96, " 10 ms "),
        ("step_ms", 12345.6, " 12346 ms "),
        ("step_ms", 3.6e6, " 3600 s "),
        ("step_ms", NAN, " n/a ms "),
        ("tokens_per_s", 0.5, " 0.5 tok/s "),
        ("tokens_per_s", 999.0, " 999 tok/s "),
        ("tokens_per_s", 999.9, " 1k tok/s "),
        ("tokens_per_s", 999_900.0, " 1M tok/s "),
        ("tokens_per_s", 1.234e6, " 1.23M tok/s "),
        ("tokens_per_s", 1.234e13, " 12340G tok/s "),
        ("tokens_per_s", INF, " n/a tok/s "),
        ("mfu", None, " mfu n/a "),
        ("mfu", 1.0, " mfu 100.0% "),
        ("eta_s", 0.4, " eta 0s"),
        ("eta_s", 59.6, " eta 1m00s"),
        ("eta_s", 3599.6, " eta 1h00m"),
        ("eta_s", 7380.0, " eta 2h03m"),
        ("eta_s", 86_399.9, " eta 1d00h"),
        ("eta_s", 90_000.0, " eta 1d01h"),
        ("eta_s", INF, " eta n/a"),
        ("eta_s", NAN, " eta n/a"),
    ],
)
def test_a_number_far_from_the_usual_is_readable(field, value, text):
    assert text in line(**{field: value}) + " "


def test_into_a_file_go_plain_lines_only():
    stream = io.StringIO()
    with Reporter(2000, stream) as reporter:
        reporter.line("resumed from step-00000100")
        reporter.step(RECORD)
    assert stream.getvalue() == f"resumed from step-00000100\n{step_line(RECORD)}\n"


def test_every_line_is_flushed():
    class Stream(io.StringIO):
        flushes = 0

        def flush(self):
            self.flushes += 1

    stream = Stream()
    Reporter(2000, stream).step(RECORD)
    assert stream.flushes == 1


def test_output_that_can_not_be_written_does_not_stop_the_run():
    class Full(io.StringIO):
        def write(self, text):
            raise OSError(28, "No space left on device")

    with Reporter(2000, Full()) as reporter:
        reporter.step(RECORD)
    closed = io.StringIO()
    reporter = Reporter(2000, closed)
    closed.close()
    reporter.step(RECORD)


def test_rich_is_not_imported_where_there_is_no_terminal():
    code = "import sys; from harness.run.progress import Reporter; Reporter(1)"
    code += "; print('rich' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"


@pytest.fixture
def shown(monkeypatch):
    """A function that reports one step to a pseudo-terminal and returns what that shows."""

    def show(**environment):
        for name in ("NO_COLOR", "FORCE_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE"):
            monkeypatch.delenv(name, raising=False)
        for name, value in ({"TERM": "xterm-256color", "COLUMNS": "120"} | environment).items():
            monkeypatch.setenv(name, value)
        screen, terminal = pty.openpty()
        with open(terminal, "w") as stream, Reporter(2000, stream) as reporter:
            reporter.step(RECORD)
            reporter.line("loss [bold]1.5[/bold] :smile:")
        raw = b""
        with suppress(OSError):  # EIO: all was read, and nobody has the terminal open
            while piece := os.read(screen, 1 << 16):
                raw += piece
        os.close(screen)
        return raw.decode()

    return show


def test_on_a_terminal_a_bar_stands_below_the_lines(shown):
    text = shown()
    assert step_line(RECORD) in text
    assert "loss [bold]1.5[/bold] :smile:" in text, "text is text, never markup"
    assert text.index(step_line(RECORD)) < text.rindex("120/2000")
    assert "\x1b[38;5;" in text


def test_no_color_is_honoured(shown):
    text = shown(NO_COLOR="1")
    assert "120/2000" in text
    assert "\x1b[38;5;" not in text
    assert "\x1b[3" not in text


def test_a_dumb_terminal_gets_plain_lines(shown):
    assert "\x1b" not in shown(TERM="dumb")
