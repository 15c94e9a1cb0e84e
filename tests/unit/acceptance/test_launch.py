"""What a launch costs, by a clock that goes on only where something is done."""

import numpy as np
import pytest

from harness.acceptance.parts import launch

FIRST_S, LAUNCH_S, GRAPH_S, WAIT_S = 100.0, 1.0, 0.25, 10.0
ROOM = 4


class Slow:
    """A backend and its device: each thing takes its time, and the first launch compiles."""

    device, capturable = "slow", True

    def __init__(self):
        self.now, self.waiting, self.launched = 0.0, 0, 0
        self.functions = {"capture": self.capture}

    def __contains__(self, name):
        return name == launch.HOOK or name in self.functions

    def open_device(self):
        return self

    def empty(self, nbytes):
        return np.zeros(nbytes, np.uint8)

    def view(self, memory, offset, shape, dtype):
        return memory[offset:].view(dtype).reshape(shape)

    def from_host(self, buffer, array):
        buffer[...] = array

    def adapt(self, buffer):
        return buffer

    def function(self, hook, precision):
        def run(out, x):
            self.now += LAUNCH_S if self.launched else FIRST_S
            self.launched += 1
            if self.waiting == ROOM:  # the driver's queue is full
                self.now, self.waiting = self.now + WAIT_S, ROOM - 1
            self.waiting += 1

        return run

    def capture(self, calls):
        def replay():
            self.now += GRAPH_S  # the host's share; the device's is in the wait
            self.waiting += len(calls)

        return replay

    def synchronize(self):
        self.now += WAIT_S * self.waiting
        self.waiting = 0


@pytest.fixture
def slow(monkeypatch):
    backend = Slow()
    monkeypatch.setattr(launch, "load", lambda name, ops: backend)
    monkeypatch.setattr(launch, "configure", lambda backend, settings: None)
    monkeypatch.setattr(launch.time, "perf_counter", lambda: backend.now)
    return backend


def test_the_host_s_time_is_of_one_launch_without_the_wait_or_the_compiling(slow):
    assert launch.launched("slow", 4, 3)["host_s"] == LAUNCH_S
    assert launch.launched("slow", 4, 2)["launches"] == 4


def test_a_graph_s_time_is_of_one_launch_with_the_wait(slow):
    assert launch.launched("slow", 4, 3)["graph_s"] == (GRAPH_S + 4 * WAIT_S) / 4


def test_one_round_that_something_disturbed_does_not_count(slow):
    seconds = iter([9.0, 1.0, 1.0, 50.0])

    def run():
        slow.now += next(seconds)

    assert launch._median_s(run, slow.synchronize, 3) == 1.0


@pytest.mark.parametrize("why", ["not capturable", "no capture", "declined"])
def test_what_cannot_be_captured_has_no_graph_s_time(slow, why):
    slow.capturable = why != "not capturable"
    if why == "no capture":
        slow.functions.clear()
    if why == "declined":
        slow.functions["capture"] = lambda calls: None
    assert launch.launched("slow", 4, 3)["graph_s"] is None
