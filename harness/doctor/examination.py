"""Examine, print, and give the exit code.

Everything is tried, nothing is changed. The exit code is 0 if what the default run needs works, and that
of the first thing that does not otherwise; a broken backend that nobody asked for is only a warning.
"""

import argparse
import json
import os
import platform
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict

from harness import __version__
from harness.doctor import machine, software, speed
from harness.doctor.line import MISSING, OK, WARN, Line, Measured

NEEDED = ("packages", "backends", "default run")
UNFORESEEN = 1
"""The exit code where something needed could not be found out."""

Topic = tuple[str, Callable[[], Iterator[Line]]]


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of `harness doctor`."""
    parser.add_argument("--json", action="store_true", help="the same, for programs")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """`harness doctor`. Returns the exit code."""
    return run_doctor(as_json=arguments.json)


def run_doctor(*, as_json: bool = False, show: Callable[[str], None] = print) -> int:
    """Examine, print, and give the exit code."""
    measured, lines = Measured(), []
    begin = time.perf_counter()
    if not as_json:
        show(f"harness {__version__} on {platform.system()} {platform.machine()}\n")
    for line in examine(measured):
        lines.append(line)
        if not as_json:
            show(str(line))
    measured.seconds = round(time.perf_counter() - begin, 2)
    code = next((line.exit_code for line in lines if line.exit_code), 0)
    show(_record(lines, measured, code) if as_json else _verdict(lines, code))
    return code


def examine(measured: Measured) -> Iterator[Line]:
    """Every line, in the order in which one thing builds on another."""
    for topic, lines in _topics(measured):
        try:
            yield from lines()
        except Exception as error:  # one topic that cannot be found out hides no other
            if os.environ.get("HARNESS_TRACEBACK"):
                raise
            text = f"could not be found out ({type(error).__name__}: {error})"
            status, code = (MISSING, UNFORESEEN) if topic in NEEDED else (WARN, 0)
            yield Line(status, topic, text, "HARNESS_TRACEBACK=1 harness doctor shows where", code)


def _topics(measured: Measured) -> tuple[Topic, ...]:
    return (
        ("python", software.python),
        ("packages", software.packages),
        ("cores", machine.cores),
        ("threads", machine.threads),
        ("memory", machine.memory),
        ("backends", software.backends),  # loads them, and so the libraries that follow
        ("blas", machine.libraries),
        ("environment", machine.environment),
        ("default run", lambda: software.default_run(measured)),
        ("runs folder", machine.runs_folder),
        ("numba", software.numba),
        ("cuda", machine.cuda),
        ("tiktoken", software.tiktoken_files),
        ("torch", software.torch),
        ("matmul", lambda: speed.matmul(measured)),
        ("peaks", speed.peaks),
    )


def _record(lines: list[Line], measured: Measured, code: int) -> str:
    record = {
        "harness": __version__,
        "exit_code": code,
        "lines": [asdict(line) for line in lines],
        "measured": asdict(measured),
    }
    return json.dumps(record, indent=2, allow_nan=False)


def _verdict(lines: list[Line], code: int) -> str:
    counts = {status: sum(x.status == status for x in lines) for status in (OK, WARN, MISSING)}
    verdict = "the default run works" if code == 0 else "the default run does NOT work"
    return "\n" + ", ".join(f"{n} {status}" for status, n in counts.items()) + f": {verdict}"
