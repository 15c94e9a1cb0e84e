"""Kernels are compiled ahead in two processes; what goes wrong there costs time only."""

import sys

import numpy as np
import pytest

from backends.numba_cpu import _compile_ahead, _kernel, plugin

X, SUM = np.zeros(1000, np.float32), np.zeros(1, np.float32)
CALLS = [("squared_norm", [SUM, X]), ("guard", [SUM, X])]


class Compiled:
    """In the place of a dispatcher: what was compiled in this process."""

    def __init__(self, kernel, log):
        self._real, self._log, self._name = kernel.dispatcher, log, kernel.__module__

    def typeof_pyval(self, value):
        return self._real.typeof_pyval(value)

    def compile(self, types):
        self._log.append(self._name.rsplit(".")[-1])


@pytest.fixture
def log(monkeypatch, tmp_path):
    """Nothing is on disk, and compiling takes no time."""
    from backends.numba_cpu.guard import _not_finite
    from backends.numba_cpu.squared_norm import _sum_of_squares

    here = []
    for kernel in (_not_finite, _sum_of_squares):
        monkeypatch.setattr(kernel, "dispatcher", Compiled(kernel, here))
    monkeypatch.setattr(_kernel, "cache_folder", lambda: tmp_path)
    monkeypatch.setattr(_compile_ahead, "threads", lambda: 2)
    return here


def program(monkeypatch, code):
    """A second process that runs this."""
    real = _compile_ahead.subprocess.Popen

    def popen(command, **settings):
        started.append(real([sys.executable, "-c", code], **settings))
        return started[-1]

    started = []
    monkeypatch.setattr(_compile_ahead.subprocess, "Popen", popen)
    return started


def test_the_number_is_said_before_the_first_kernel_is_compiled(log, monkeypatch):
    monkeypatch.setattr(_compile_ahead, "threads", lambda: 1)
    compiling = plugin.compile_ahead(CALLS)
    assert next(compiling) == (0, 2)
    assert log == []
    assert list(compiling) == [(1, 2), (2, 2)]
    assert sorted(log) == ["guard", "squared_norm"]


def test_what_is_on_disk_is_not_spoken_of(log, monkeypatch):
    monkeypatch.setattr(_kernel, "is_kept", lambda kernel, types: True)
    assert list(plugin.compile_ahead(CALLS)) == []


def test_without_a_place_to_keep_it_nothing_is_compiled_ahead(log, monkeypatch):
    monkeypatch.setattr(_kernel, "cache_folder", lambda: None)
    assert list(plugin.compile_ahead(CALLS)) == []
    assert log == []


def test_no_buffer_is_written(log):
    mine = np.full(1, 7, np.float32)
    list(plugin.compile_ahead([("squared_norm", [mine, X]), ("guard", [mine, X])]))
    assert mine[0] == 7


@pytest.mark.parametrize(
    "code",
    ["raise SystemExit(3)", "import sys; sys.stdin.buffer.read(9)", "import sys; print('no')"],
    ids=["ends at once", "dies at a kernel", "answers nonsense"],
)
def test_what_the_second_process_does_not_bring_is_compiled_here(log, monkeypatch, code):
    started = program(monkeypatch, code)
    list(plugin.compile_ahead(CALLS))
    assert sorted(log) == ["guard", "squared_norm"]
    assert [process.poll() is not None for process in started] == [True]


def test_a_second_process_that_cannot_be_started_is_not_missed(log, monkeypatch):
    monkeypatch.setattr(_compile_ahead.sys, "executable", "/nowhere/python")
    list(plugin.compile_ahead(CALLS))
    assert sorted(log) == ["guard", "squared_norm"]


def test_a_run_that_stops_on_the_way_leaves_no_process(log, monkeypatch):
    started = program(monkeypatch, "import time; time.sleep(600)")
    compiling = plugin.compile_ahead([*CALLS, ("guard", [SUM, X.reshape(10, 100)])])
    next(compiling)
    next(compiling)
    compiling.close()
    assert all(process.poll() is not None for process in started)
