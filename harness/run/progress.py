"""Show a run as it goes: one line a step, and on a terminal a bar below the lines.

    step 120/2000  loss 3.412  grad 0.81  lr 3.0e-04  41 ms  18.7k tok/s  mfu 12.3%  eta 1m12s

A file or a pipe gets plain lines only. Output that cannot be written, into a closed pipe or onto a full
disk, never stops a run.
"""

import math
import os
import sys
import time
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Self, TextIO

REFRESH_S = 0.1  # of the bar; a step of a small model takes less


@dataclass(frozen=True)
class StepRecord:
    step: int
    steps: int  # of the whole run
    loss: float
    grad_norm: float | None  # before clipping; None where it was not computed
    learning_rate: float
    step_ms: float
    tokens_per_s: float
    mfu: float | None  # of the device's measured peak, 0 to 1; None where the peak is unknown
    eta_s: float


def step_line(record: StepRecord) -> str:
    """The line of one step."""
    return "  ".join(
        [
            f"step {record.step}/{record.steps}",
            f"loss {_loss(record.loss)}",
            "grad n/a" if record.grad_norm is None else f"grad {_short(record.grad_norm)}",
            f"lr {record.learning_rate:.1e}",
            _milliseconds(record.step_ms),
            f"{_thousands(record.tokens_per_s)} tok/s",
            "mfu n/a" if record.mfu is None else f"mfu {100 * record.mfu:.1f}%",
            f"eta {_duration(record.eta_s)}",
        ]
    )


class Reporter:
    """Print lines on stream as they come; on a terminal, keep a progress bar below them.

    steps: of the whole run; the bar is full when a record's step has reached it.
    """

    def __init__(self, steps: int, stream: TextIO | None = None) -> None:
        self._stream = sys.stdout if stream is None else stream
        self._bar: Any = None
        self._refreshed_s = -math.inf
        self._compiling: Any = None  # the task of the bar that counts kernels
        if _is_terminal(self._stream):
            self._bar = _make_bar(self._stream, steps)

    def step(self, record: StepRecord) -> None:
        """Print the line of a step, and move the bar."""
        self._print(step_line(record))
        if self._bar is not None:
            with suppress(OSError, ValueError):
                self._move_bar(record)

    def line(self, text: str) -> None:
        """Print any other line: what the run goes on from, a validation loss."""
        self._print(text)

    def compiling(self, backend: str, done: int, count: int) -> None:
        """Say before it begins that kernels are compiled; on a terminal, count them in a bar."""
        if done == 0:
            self._print(f"compiling  {count} kernels of {backend}, kept on disk")
        if self._bar is None:
            return
        with suppress(OSError, ValueError):
            if done == 0:
                self._compiling = self._bar.add_task("compiling", total=count)
            self._bar.update(self._compiling, completed=done, refresh=True)
            if done == count:
                self._bar.remove_task(self._compiling)

    def __enter__(self) -> Self:
        if self._bar is not None:
            with suppress(OSError, ValueError):
                self._bar.start()
        return self

    def __exit__(self, *exception: object) -> None:
        if self._bar is not None:
            with suppress(OSError, ValueError):
                self._bar.stop()

    def _print(self, text: str) -> None:
        with suppress(OSError, ValueError):  # ValueError: the stream was closed
            if self._bar is None:
                print(text, file=self._stream, flush=True)
            else:
                self._bar.console.print(
                    text, style="", highlight=False, markup=False, emoji=False, soft_wrap=True
                )

    def _move_bar(self, record: StepRecord) -> None:
        now_s = time.perf_counter()
        due = now_s - self._refreshed_s >= REFRESH_S or record.step == record.steps
        self._bar.update(self._bar.task_ids[0], completed=record.step, refresh=due)
        if due:
            self._refreshed_s = now_s


def _is_terminal(stream: TextIO) -> bool:
    try:
        return stream.isatty() and os.environ.get("TERM") != "dumb"
    except (AttributeError, ValueError):
        return False


def _make_bar(stream: TextIO, steps: int) -> Any:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

    no_color = bool(os.environ.get("NO_COLOR"))
    bar = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        console=Console(file=stream, no_color=no_color),
        # No thread beside the training: the bar moves when a step is reported.
        auto_refresh=False,
        redirect_stdout=False,
        redirect_stderr=False,
    )
    bar.add_task("training", total=steps)
    return bar


def _loss(loss: float) -> str:
    return f"{loss:.3f}" if 0.001 <= abs(loss) < 10_000 or loss == 0 else f"{loss:.3g}"


def _short(value: float) -> str:
    if value == 0 or 0.01 <= abs(value) < 1000:
        return f"{value:.2f}" if abs(value) < 100 else f"{value:.0f}"
    return f"{value:.1e}"


def _milliseconds(step_ms: float) -> str:
    if not math.isfinite(step_ms):
        return "n/a ms"
    if step_ms >= 99_950:
        return f"{step_ms / 1000:.0f} s"
    return f"{step_ms:.0f} ms" if step_ms >= 9.95 else f"{step_ms:.2g} ms"


def _thousands(value: float) -> str:
    if not math.isfinite(value):
        return "n/a"
    for unit, scale in (("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if value >= 0.9995 * scale:
            return (
                f"{value / scale:.3g}{unit}"
                if value < 999.5 * scale
                else f"{value / scale:.0f}{unit}"
            )
    return f"{value:.3g}"


def _duration(seconds: float) -> str:
    if not math.isfinite(seconds) or seconds < 0:
        return "n/a"
    whole = round(seconds)
    days, hours, minutes = whole // 86_400, whole // 3600 % 24, whole // 60 % 60
    if days:
        return f"{days}d{hours:02}h"
    if hours:
        return f"{hours}h{minutes:02}m"
    return f"{minutes}m{whole % 60:02}s" if minutes else f"{whole}s"
