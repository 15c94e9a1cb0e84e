"""A part for the tests, as worker.py loads one: its workers are those that it is asked for."""

import os
import signal
import time
from pathlib import Path

from harness.acceptance.part import Part, Unavailable

DOES = {
    "fine": ["right", "right too"],
    "crashing": ["right", "crash", "right after"],
    "hanging": ["right", "hang", "right after"],
    "wrong": ["right", "raises", "right after"],
    "elsewhere": ["absent"],
    "broken": [],
}


def workers(request):
    return request.backends["fake"]["workers"]


def checks(request, worker, found):
    if worker == "broken":
        raise RuntimeError("no such library")
    for name in DOES[worker]:
        yield name, lambda name=name: run(request, worker, name)


def run(request, worker, name):
    counted = Path(request.backends["fake"]["folder"]) / f"{worker}-{name}"
    counted.write_text(counted.read_text() + "x" if counted.exists() else "x")
    if name == "crash":
        os.kill(os.getpid(), signal.SIGSEGV)
    if name == "hang":
        time.sleep(60)
    if name == "raises":
        raise RuntimeError("an illegal address")
    if name == "absent":
        raise Unavailable("there is none of it here")
    return {"ok": True, "process": os.getpid()}


def lines(workers):
    return [f"* {worker}: {len(checks)} checks" for worker, checks in workers.items()]


PART = Part("fake", "Is it so?", 1.0, workers, checks, lines, at_once=2)
