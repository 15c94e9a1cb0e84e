"""Run a part's lanes in processes of their own, what hangs or crashes loses itself only."""

import json
import os
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness import ROOT
from harness.acceptance.part import Asked, Part
from harness.acceptance.worker import SETUP
from harness.machine.child import Child, how_it_ended
from harness.machine.nvidia_driver import CPU_VARIABLES

LOOK_S = 0.05
TELL_S = 5.0
PATIENCE_S = 8.0
LAST_LINES = 4


@dataclass
class Found:
    """What the lanes of a part left. complete: every lane came to its end."""

    lanes: dict[str, dict[str, Any]]
    complete: bool


@dataclass
class _Lane:
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
            return {"pieces": {}, "running": None, "complete": False}
        return state


def run_part(
    part: Part,
    module: str,
    asked: Asked,
    limit_s: float,
    known: Mapping[str, Mapping[str, Any]],
    tell: Callable[[dict[str, dict[str, Any]]], None] = lambda lanes: None,
) -> Found:
    """The part's results within limit_s. module: the part's name, as lane.py takes it.

    known: lane -> pieces of an earlier attempt, which are not run again. tell: is shown what there is
    every few seconds, so that even the end of this process would not lose it.
    """
    end = time.monotonic() + limit_s
    told = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="harness-acceptance-") as folder:
        lanes = [
            _Lane(name, Path(folder) / f"{number}.json")
            for number, name in enumerate(part.lanes(asked))
        ]
        for lane in lanes:
            if known.get(lane.name):
                state = {"pieces": dict(known[lane.name]), "running": None, "complete": False}
                lane.file.write_text(json.dumps(state), encoding="utf-8")
        try:
            while not all(lane.done for lane in lanes) and time.monotonic() < end:
                _look(part, module, asked, lanes, end)
                if time.monotonic() - told > TELL_S:
                    tell({lane.name: lane.state["pieces"] for lane in lanes})
                    told = time.monotonic()
                time.sleep(LOOK_S)
        finally:
            for lane in lanes:
                _end(lane)
        found = {lane.name: lane.state["pieces"] for lane in lanes}
        return Found(found, all(lane.state["complete"] for lane in lanes))


def _look(part: Part, module: str, asked: Asked, lanes: list[_Lane], end: float) -> None:
    """Note which lanes have ended, and start those that may."""
    for lane in lanes:
        if lane.child is not None and lane.child.process.poll() is not None:
            _ended(lane)
    for lane in lanes:
        running = [other for other in lanes if other.child is not None]
        alone = any(part.alone(one.name) for one in (lane, *running)) and running
        if len(running) < part.at_once and not alone and not lane.done and lane.child is None:
            _start(module, asked, lane, end - time.monotonic())


def environment_of(rehearsal: bool) -> dict[str, str]:
    """Of a process of ours: the harness is found in it; in a rehearsal, kernels run on the CPU."""
    environment = dict(os.environ)
    places = [str(ROOT), environment.get("PYTHONPATH", "")]
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, places))
    if rehearsal:
        environment |= dict.fromkeys(CPU_VARIABLES, "1")
    return environment


def _start(module: str, asked: Asked, lane: _Lane, limit_s: float) -> None:
    lane.had = len(lane.state["pieces"])
    order = {
        "part": module,
        "lane": lane.name,
        "asked": asked.record(),
        "kept": str(lane.file),
        "limit_s": limit_s,
    }
    command = [sys.executable, "-m", "harness.acceptance.worker", json.dumps(order)]
    lane.child = Child(command, environment_of(asked.rehearsal), asks=False)


def _ended(lane: _Lane) -> None:
    """Count a process's end: by itself, by its time, or by a crash in the piece that it had begun."""
    assert lane.child is not None
    child, lane.child = lane.child, None
    said = " / ".join(child.last_lines(LAST_LINES))
    code = child.process.returncode
    child.end()
    state = lane.state
    if code != 0:
        piece = state["running"] or SETUP
        state["pieces"][piece] = {
            "ok": False,
            "reason": f"its process ended {_by(code)}{said and ': ' + said}",
        }
        # What cannot be set up has no next piece.
        state["complete"] = piece == SETUP
        state["running"] = None
        lane.file.write_text(json.dumps(state), encoding="utf-8")
    lane.done = state["complete"] or len(state["pieces"]) <= lane.had


def _by(code: int) -> str:
    return f"{'by' if code < 0 else 'with'} {how_it_ended(code)}"


def _end(lane: _Lane) -> None:
    """End a process that is still there; what it had begun is not counted."""
    if lane.child is not None:
        lane.child.end(PATIENCE_S, terminate=True)
        lane.child = None
