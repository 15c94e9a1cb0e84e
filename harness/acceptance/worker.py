"""The process of a worker. It does one check after another, and writes each result to a file at once.

    python -m harness.acceptance.worker '{"part", "worker", "request": {...}, "kept": FILE, "limit_s"}'

The file: {"checks": {name: result}, "running": the check that was begun, "complete": no check is left}.
A check that the file has is not run again: a new process goes on where the last one ended.
"""

import importlib
import json
import signal
import sys
import time
from pathlib import Path
from typing import Any

from harness.acceptance.part import Part, Request, attempt
from harness.acceptance.parts import MODULES

SETUP = "setting up"


class Kept:
    """The file of a worker."""

    def __init__(self, file: Path) -> None:
        self.file = file
        self.state: dict[str, Any] = {"checks": {}, "running": None, "complete": False}
        if file.exists():
            self.state = json.loads(file.read_text(encoding="utf-8"))

    @property
    def checks(self) -> dict[str, Any]:
        found: dict[str, Any] = self.state["checks"]
        return found

    def begin(self, name: str) -> None:
        self.state["running"] = name
        self.write()

    def end(self, name: str, result: dict[str, Any]) -> None:
        self.checks[name] = result
        self.state["running"] = None
        self.write()

    def pause(self) -> None:
        self.state["running"] = None
        self.write()

    def complete(self) -> None:
        self.state["complete"] = True
        self.pause()

    def write(self) -> None:
        whole = self.file.with_suffix(".part")
        whole.write_text(json.dumps(self.state), encoding="utf-8")
        whole.replace(self.file)


def part_of(name: str) -> Part:
    """A part by its name; a test's own is a module."""
    found: Part = importlib.import_module(MODULES.get(name, name)).PART
    return found


def run_checks(part: Part, worker: str, request: Request, kept: Kept, limit_s: float) -> None:
    """Run the checks that are not kept yet, until one asks for a new process or the time is over."""
    end = time.monotonic() + limit_s
    kept.begin(SETUP)
    for name, run in part.checks(request, worker, kept.checks):
        if name in kept.checks:
            continue
        if time.monotonic() >= end:
            kept.pause()
            return
        kept.begin(name)
        result = attempt(run)
        if _told_to_end:
            return  # the result is of the signal, not of the check
        fresh = result.pop("fresh", False)
        kept.end(name, result)
        if fresh:
            return
        kept.begin(SETUP)
    kept.complete()


_told_to_end: list[int] = []


def _end(number: int, _: Any) -> None:
    # Leave through the check's contexts, so that what it has started is ended with it.
    _told_to_end.append(number)
    sys.exit(128 + number)


def main(argv: list[str]) -> int:
    order = json.loads(argv[0])
    signal.signal(signal.SIGTERM, _end)
    kept = Kept(Path(order["kept"]))
    request = Request(**order["request"])
    run_checks(part_of(order["part"]), order["worker"], request, kept, order["limit_s"])
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
