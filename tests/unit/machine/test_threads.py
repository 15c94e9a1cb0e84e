"""One number of threads for every library, told to the backends after the libraries, and taken back."""

import os
import subprocess
import sys
from types import SimpleNamespace

import numpy  # noqa: F401 - its BLAS is what is looked at
import pytest
import threadpoolctl

from backends.numpy_cpu import _blocks, plugin
from harness.errors import ConfigError, PluginError
from harness.files import system
from harness.machine import threads
from harness.machine.threads import (
    THREAD_VARIABLES,
    Threads,
    threads_for,
    use_threads,
    using_threads,
)


@pytest.fixture(autouse=True)
def two_cores(monkeypatch):
    """A machine of two cores, and no variable that asks for a number of threads."""
    monkeypatch.setattr(threads, "cores_allowed", lambda: 2)
    for name in THREAD_VARIABLES:
        monkeypatch.delenv(name, raising=False)


def backend(set_threads=None):
    functions = {} if set_threads is None else {"set_threads": set_threads}
    return SimpleNamespace(name="mine", source="a test", functions=functions)


def blas_threads():
    return {i["num_threads"] for i in threadpoolctl.threadpool_info() if i["user_api"] == "blas"}


@pytest.mark.parametrize(
    ("count", "environment", "expected"),
    [
        (None, {}, (2, "")),
        (1, {}, (1, "threads=1")),
        (4, {}, (4, "threads=4")),
        (None, {"OPENBLAS_NUM_THREADS": "1"}, (1, "OPENBLAS_NUM_THREADS=1")),
        (2, {"OPENBLAS_NUM_THREADS": "1"}, (2, "threads=2")),
        (None, {"OMP_NUM_THREADS": "2", "NUMBA_NUM_THREADS": "1"}, (1, "NUMBA_NUM_THREADS=1")),
        (None, {"OMP_NUM_THREADS": "1,4"}, (1, "OMP_NUM_THREADS=1")),
        (None, {"OMP_NUM_THREADS": "64"}, (2, "")),
        (None, {"OMP_NUM_THREADS": "many", "MKL_NUM_THREADS": "0"}, (2, "")),
    ],
)
def test_what_is_said_counts_then_the_least_variable_then_the_cores(
    monkeypatch, count, environment, expected
):
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    found = threads_for(count)
    assert (found.count, found.said_by) == expected


@pytest.mark.parametrize("count", [0, -1, 10**9])
def test_a_number_that_no_library_takes_is_refused(count):
    with pytest.raises(ConfigError) as caught:
        threads_for(count)
    assert caught.value.slug == "threads-out-of-range"


@pytest.mark.parametrize(
    ("found", "words"),
    [
        (Threads(4, 2, "threads=4"), "4 threads on 2 cores"),
        (
            Threads(1, 2, "OMP_NUM_THREADS=1"),
            "OMP_NUM_THREADS=1 leaves 1 of 2 cores idle\nthreads=2",
        ),
        (Threads(1, 2, "threads=1"), None),
        (Threads(2, 2), None),
    ],
)
def test_what_is_wrong_with_the_number_is_said_and_a_choice_is_not_wrong(found, words):
    assert found.warning is None if words is None else words in found.warning


def test_the_libraries_have_as_many_inside_and_as_before_behind():
    with threadpoolctl.threadpool_limits(2):
        with using_threads(1) as found:
            assert found.count == 1 and blas_threads() == {1}
        assert blas_threads() == {2}


def test_a_backend_is_told_after_the_libraries_were_limited():
    """So that it can hold a library of its own to another number."""
    seen = []

    def set_threads(count):
        seen.append((count, blas_threads()))
        threadpoolctl.threadpool_limits(2)

    with threadpoolctl.threadpool_limits(2), using_threads(1, [backend(set_threads), backend()]):
        assert seen == [(1, {1})]
        assert blas_threads() == {2}, "the backend has the last word"


def test_backends_are_told_what_they_had_when_the_block_ends():
    told = []
    mine = backend(told.append)
    with using_threads(4, [mine]):
        with using_threads(1, [mine]):
            pass
        assert told == [4, 1, 4]
    assert told == [4, 1, 4, 2]


def test_a_backend_that_refuses_is_one_clear_error_and_nothing_stays_changed():
    def refuse(count):
        raise ValueError("at most 1")

    told = []
    with (
        threadpoolctl.threadpool_limits(2),
        pytest.raises(PluginError) as caught,
        using_threads(1, [backend(told.append), backend(refuse)]),
    ):
        pass
    assert caught.value.slug == "threads-not-set"
    assert caught.value.facts["reason"] == "ValueError: at most 1"
    assert told == [1, 2]


def test_for_the_life_of_a_process_it_stays(monkeypatch):
    monkeypatch.setattr(threads, "_in_force", None)
    told = []
    with threadpoolctl.threadpool_limits(2):
        assert use_threads(1, [backend(told.append)]) == 1
        assert blas_threads() == {1} and told == [1]


def test_a_process_really_computes_with_that_many():
    """From outside: two threads of the library's are there, or only the main one."""
    program = (
        "import sys, numpy as np; from harness.machine.threads import use_threads; "
        "from harness.plugins.loading import all_ops, load; use_threads(int(sys.argv[1]), "
        "[load('numpy', all_ops())]); from backends.numpy_cpu import _blocks; "
        "import threadpoolctl; print(_blocks._threads(), "
        "*(i['num_threads'] for i in threadpoolctl.threadpool_info()))"
    )
    for count in ("1", "2"):
        done = subprocess.run(
            [sys.executable, "-c", program, count], capture_output=True, text=True, timeout=60
        )
        assert set(done.stdout.split()) == {count}, done.stdout + done.stderr


def test_the_blocks_of_the_numpy_backend_follow_a_change(monkeypatch):
    monkeypatch.setattr(_blocks, "_count", None)
    for count in (2, 1, _blocks.MAX_THREADS + 1, 2):
        plugin.set_threads(count)
        assert _blocks._threads() == min(count, _blocks.MAX_THREADS)
    assert _blocks._pool()._max_workers == 1, "beside the one that asks"


def group(tmp_path, monkeypatch, quotas, own="0::/a/b"):
    """Control groups as files: folder -> content of cpu.max."""
    for folder, quota in quotas.items():
        (tmp_path / folder).mkdir(parents=True, exist_ok=True)
        (tmp_path / folder / "cpu.max").write_text(quota)
    monkeypatch.setattr(system, "CGROUPS", tmp_path)
    read = system.Path.read_text
    monkeypatch.setattr(
        system.Path,
        "read_text",
        lambda path, *a, **k: own if str(path) == "/proc/self/cgroup" else read(path, *a, **k),
    )


@pytest.mark.parametrize(
    ("quotas", "cores"),
    [
        ({"a/b": "max 100000\n"}, 8),
        ({"a/b": "150000 100000\n"}, 2),
        ({"a/b": "max 100000\n", "a": "100000 100000\n"}, 1),
        ({"a/b": "1000 100000\n"}, 1),
        ({"a/b": "nonsense"}, 8),
        ({}, 8),
    ],
)
def test_the_quota_of_a_container_counts_as_cores(tmp_path, monkeypatch, quotas, cores):
    monkeypatch.undo()
    if not hasattr(os, "sched_getaffinity"):
        pytest.skip("this system has no control groups")
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(8)))
    group(tmp_path, monkeypatch, quotas)
    assert threads.cores_allowed() == cores
