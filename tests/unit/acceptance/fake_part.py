"""A part for the tests, as lane.py loads one: its lanes are those that it is asked for."""

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


def lanes(asked):
    return asked.backends["fake"]["lanes"]


def pieces(asked, lane, found):
    if lane == "broken":
        raise RuntimeError("no such library")
    for name in DOES[lane]:
        yield name, lambda name=name: run(asked, lane, name)


def run(asked, lane, name):
    counted = Path(asked.backends["fake"]["folder"]) / f"{lane}-{name}"
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


def lines(lanes):
    return [f"* {lane}: {len(pieces)} pieces" for lane, pieces in lanes.items()]


PART = Part("fake", "Is it so?", 1.0, lanes, pieces, lines, at_once=2)
