"""CUDA on the CPU does what CUDA's documentation says: indices, votes, orders, captures."""

import gc
import os
import subprocess
import sys
from functools import partial

import numpy as np
import pytest

from backends.cupy_cuda._launch import i32
from backends.cupy_cuda.on_cpu.machine import ORDERS, Array, Cpu
from harness.errors import ConfigError, PluginError


@pytest.mark.parametrize("order", ORDERS)
def test_every_thread_of_a_grid_of_three_dimensions_runs_once(kernels, order):
    grid, block = (3, 2, 2), (5, 4, 3)
    out = np.zeros((12, 60), np.int32)
    kernels("races").run("index_of_each", grid, block, out, order=order)
    np.testing.assert_array_equal(out, np.arange(12)[:, None] * 1000 + np.arange(60))


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("least", [0, 1, 40, 96])
def test_votes_count_the_threads_that_say_yes(kernels, order, least):
    count, ballot, each = np.zeros(3, np.int32), np.zeros(3, np.uint32), np.zeros((3, 2), np.int32)
    kernels("races").run("votes", 1, 96, count, ballot, each, i32(least), order=order)
    yes = (np.arange(96) >= least).reshape(3, 32)
    assert count.tolist() == [yes.sum(), yes.all(), yes.any()]
    assert ballot.tolist() == [sum(1 << i for i in range(32) if w[i]) for w in yes]
    assert each.tolist() == [[w.any(), w.all()] for w in yes]


def test_orders_differ(kernels):
    last = []
    for order in ORDERS:
        out = np.zeros(1, np.float32)
        kernels("races").run("all_write_one", 1, 1024, out, order=order)
        last.append(out[0])
    assert last[:2] == [1023, 0]
    assert len(set(last)) == len(ORDERS)


def test_activemask_does_not_compile_and_says_why(kernels):
    with pytest.raises(PluginError, match="__activemask is not emulated: which lanes run together"):
        kernels("active").run("active", 1, 32, np.zeros(1, np.uint32))


@pytest.mark.parametrize("order", ORDERS[:3])
def test_the_portable_switch_gives_the_same(kernels, rng, order):
    x_BN = rng.normal(size=(2, 256)).astype(np.float32)
    results = []
    for defines in ((), (("CUDA_ON_CPU_PORTABLE", "1"),)):
        sum_B = np.zeros(2, np.float32)
        kernels("races").run("tree", 2, 256, sum_B, x_BN, defines=defines, order=order)
        results.append(sum_B)
    np.testing.assert_array_equal(*results)
    np.testing.assert_allclose(results[0], x_BN.sum(axis=1), atol=1e-4)  # sum of 256 terms of 1


def test_denormal_numbers_count_as_zero_where_that_is_asked_for(kernels):
    if os.uname().machine != "x86_64":
        pytest.skip("denormal numbers are flushed on x86-64 alone")
    races, x = kernels("races"), np.full(1, 1.5e-38, np.float32)
    halves = []
    for races.machine.flush_denormals in (False, True):
        out = np.ones(1, np.float32)
        races.run("half_of", 1, 1, out, x)
        halves.append(out[0])
    assert halves == [np.float32(7.5e-39), 0]
    assert x[0] * np.float32(0.5) == halves[0], "the host's arithmetic is as before"


@pytest.mark.parametrize(("asked", "order"), [("1", 0), ("reversed", 1), ("shuffled", 2)])
def test_the_environment_chooses_the_order(monkeypatch, asked, order):
    monkeypatch.setenv("HARNESS_CUDA_ON_CPU", asked)
    assert Cpu().order == order


def test_an_unknown_order_is_an_error_that_names_the_others(monkeypatch):
    monkeypatch.setenv("HARNESS_CUDA_ON_CPU", "sideways")
    with pytest.raises(ConfigError, match="reversed, shuffled"):
        Cpu()


# -- the machine ----------------------------------------------------------------------------------


@pytest.fixture
def half_of(kernels):
    """A machine, and a launch of half_of on arrays of it."""
    races = kernels("races")
    launch = races.machine.function(races, "half_of", ())

    def run(out, x):
        launch((1, 1, 1), (1, 1, 1), (out, x), 0)

    return races.machine, run


def one_number(machine, value):
    array = machine.view(machine.empty(4), 0, (1,), np.float32)
    machine.from_host(array, np.full(1, value, np.float32))
    return array


def value_of(machine, array):
    found = np.zeros(1, np.float32)
    machine.to_host(found, array)
    return found[0]


def test_memory_is_nan_when_taken():
    machine = Cpu()
    assert np.isnan(value_of(machine, machine.view(machine.empty(4), 0, (1,), np.float32)))


def test_launches_are_counted_by_name(half_of):
    machine, run = half_of
    out, x = one_number(machine, 0), one_number(machine, 8)
    run(out, x)
    run(x, out)
    assert machine.launches == {"half_of": 2}
    assert value_of(machine, x) == 2


def test_a_graph_replays_and_capture_itself_runs_nothing(half_of):
    machine, run = half_of
    x = one_number(machine, 8)
    replay = machine.capture([lambda: run(x, x)])
    assert value_of(machine, x) == 8
    replay()
    replay()
    assert value_of(machine, x) == 2


def test_a_replay_after_its_memory_was_given_back_is_an_error(half_of):
    machine, run = half_of
    out, x = one_number(machine, 0), one_number(machine, 8)
    replay = machine.capture([partial(run, out, x)])
    replay()
    del x
    gc.collect()
    with pytest.raises(RuntimeError, match="half_of: memory of an argument was given back"):
        replay()


@pytest.mark.parametrize(
    "call",
    [
        lambda machine, x: machine.empty(4),
        lambda machine, x: machine.synchronize(),
        lambda machine, x: machine.begin_read(x),
        lambda machine, x: machine.from_host(x, np.zeros(1, np.float32)),
        lambda machine, x: machine.to_host(np.zeros(1, np.float32), x),
    ],
)
def test_what_a_capture_refuses_is_an_error(call):
    machine = Cpu()
    x = one_number(machine, 1)
    with pytest.raises(RuntimeError, match="while a graph is captured: CUDA refuses that"):
        machine.capture([lambda: call(machine, x)])
    machine.synchronize()


def test_an_array_of_the_device_is_not_read_by_numpy():
    machine = Cpu()
    with pytest.raises(TypeError, match="on the device"):
        np.asarray(one_number(machine, 1))


def test_a_stack_that_overflows_ends_the_process_and_spoils_nothing(tmp_path):
    program = """
import sys
sys.path.insert(0, "tests/unit/cupy_cuda")
from types import SimpleNamespace
from backends.cupy_cuda.on_cpu.machine import Cpu
text = '''
__attribute__((noinline)) float deep(float* x, int n) {
  volatile char room[4096];
  room[n % 4096] = n;
  return n ? deep(x, n - 1) + room[n % 4096] : x[0];
}
extern "C" __global__ void deeper(float* x, int n) { x[0] = deep(x, n); }
'''
import numpy as np
machine = Cpu()
x = machine.view(machine.empty(4), 0, (1,), np.float32)
launch = machine.function(SimpleNamespace(name="deep", text=text), "deeper", ())
for depth in (10, 1000):
    launch((1, 1, 1), (1, 1, 1), (x, np.int32(depth)), 0)
    print(depth, flush=True)
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.stdout.split() == ["10"]
    assert done.returncode < 0, "a signal, not a wrong result"


def test_kernels_of_two_threads_come_one_after_another(kernels, rng):
    from concurrent.futures import ThreadPoolExecutor

    races = kernels("races")
    launch = races.machine.function(races, "tree", ())
    x_BN = rng.integers(1, 100, size=(64, 256)).astype(np.float32)

    def sums(_):
        sum_B = np.zeros(64, np.float32)
        arrays = [Array(a.reshape(-1).view(np.uint8), 0, a.shape, a.dtype) for a in (sum_B, x_BN)]
        launch((64, 1, 1), (256, 1, 1), arrays, 0)
        return sum_B

    with ThreadPoolExecutor(4) as pool:
        for sum_B in pool.map(sums, range(16)):
            np.testing.assert_array_equal(sum_B, x_BN.sum(axis=1))
