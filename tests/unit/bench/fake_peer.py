"""A contestant for the tests, as worker.py loads one: spec["mode"] says how it behaves."""

import os
import sys
import time


def prepare(spec):
    print("a library that prints")  # must not be taken for a reply
    return "it is Sunday" if spec["mode"] == "absent" else ""


def build(spec):
    return Peer(spec)


class Peer:
    what = "a fake"
    bf16 = False

    def __init__(self, spec):
        self.mode, self.steps = spec["mode"], 0
        passing = bytearray(spec.get("bytes", 0))  # held only until it is built
        for i in range(0, len(passing), 4096):
            passing[i] = 1

    def step(self):
        self.steps += 1
        if self.mode == "killed" and self.steps == 3:
            print("the last words", file=sys.stderr, flush=True)
            os.kill(os.getpid(), 9)
        if self.mode == "raises":
            raise RuntimeError("no kernel for that")
        if self.mode == "wasteful":
            import threading

            threading.Thread(target=_spin, daemon=True).start()
            self.mode = ""
        time.sleep(0.001)
        return 5.0


def _spin():
    while True:
        pass
