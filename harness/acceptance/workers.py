"""Run a part's workers, each in its own process. One that hangs or crashes loses its own check only."""

import json
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.acceptance.part import Part, Request
from harness.acceptance.worker import SETUP
from harness.machine.child import Child, environment_with_harness, how_it_ended
from harness.machine.nvidia_driver import CPU_VARIABLES

POLL_S = 0.05
TELL_S = 5.0
PATIENCE_S = 8.0
LAST_LINES = 4


@dataclass
class Found:
    """What the workers of a part found. results: worker -> check -> result.

    complete: every worker has done all its checks.
    """

    results: dict[str, dict[str, Any]]
    complete: bool


@dataclass
class _Worker:
    name: str
    file: Path
    child: Child | None = None
    had: int = -1
    done: bool = False

    @property
    def state(self) -> dict[str, Any]:
        try:
            state: dict[str, Any] = json.loads(self.file.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {"checks": {}, "running": None, "complete": False}
        return state


def run_part(
    part: Part,
    module: str,
    request: Request,
    limit_s: float,
    known: Mapping[str, Mapping[str, Any]],
    tell: Callable[[dict[str, dict[str, Any]]], None] = lambda results: None,
) -> Found:
    """Run the part for at most limit_s. module: the part's name, as worker.py takes it.

    known: worker -> check -> result of an earlier attempt; these are not run again. tell: called every
    few seconds with the results so far, so that they are kept even if this process is killed.
    """
    end = time.monotonic() + limit_s
    told = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="harness-acceptance-") as folder:
        workers = [
            _Worker(name, Path(folder) / f"{number}.json")
            for number, name in enumerate(part.workers(request))
        ]
        for worker in workers:
            if known.get(worker.name):
                state = {"checks": dict(known[worker.name]), "running": None, "complete": False}
                worker.file.write_text(json.dumps(state), encoding="utf-8")
        try:
            while not all(worker.done for worker in workers) and time.monotonic() < end:
                _poll(part, module, request, workers, end)
                if time.monotonic() - told > TELL_S:
                    tell({worker.name: worker.state["checks"] for worker in workers})
                    told = time.monotonic()
                time.sleep(POLL_S)
        finally:
            for worker in workers:
                _end(worker)
        found = {worker.name: worker.state["checks"] for worker in workers}
        return Found(found, all(worker.state["complete"] for worker in workers))


def _poll(part: Part, module: str, request: Request, workers: list[_Worker], end: float) -> None:
    """Note which workers have ended, and start those that may."""
    for worker in workers:
        if worker.child is not None and worker.child.process.poll() is not None:
            _ended(worker)
    for worker in workers:
        running = [other for other in workers if other.child is not None]
        alone = any(part.alone(one.name) for one in (worker, *running)) and running
        if len(running) < part.at_once and not alone and not worker.done and worker.child is None:
            _start(module, request, worker, end - time.monotonic())


def environment_of(rehearsal: bool) -> dict[str, str]:
    """The environment of a worker; in a rehearsal, kernels run on the CPU."""
    environment = environment_with_harness()
    if rehearsal:
        environment |= dict.fromkeys(CPU_VARIABLES, "1")
    return environment


def _start(module: str, request: Request, worker: _Worker, limit_s: float) -> None:
    worker.had = len(worker.state["checks"])
    order = {
        "part": module,
        "worker": worker.name,
        "request": request.record(),
        "kept": str(worker.file),
        "limit_s": limit_s,
    }
    command = [sys.executable, "-m", "harness.acceptance.worker", json.dumps(order)]
    worker.child = Child(command, environment_of(request.rehearsal), asks=False)


def _ended(worker: _Worker) -> None:
    """Take note of a process that has ended. A crash counts against the check that was running."""
    assert worker.child is not None
    child, worker.child = worker.child, None
    said = " / ".join(child.last_lines(LAST_LINES))
    code = child.process.returncode
    child.end()
    state = worker.state
    if code != 0:
        check = state["running"] or SETUP
        state["checks"][check] = {
            "ok": False,
            "reason": f"its process ended {_by(code)}{said and ': ' + said}",
        }
        # Where setting up failed there is no next check.
        state["complete"] = check == SETUP
        state["running"] = None
        worker.file.write_text(json.dumps(state), encoding="utf-8")
    worker.done = state["complete"] or len(state["checks"]) <= worker.had


def _by(code: int) -> str:
    return f"{'by' if code < 0 else 'with'} {how_it_ended(code)}"


def _end(worker: _Worker) -> None:
    """End a process that is still there. The check that was running does not count."""
    if worker.child is not None:
        worker.child.end(PATIENCE_S, terminate=True)
        worker.child = None
