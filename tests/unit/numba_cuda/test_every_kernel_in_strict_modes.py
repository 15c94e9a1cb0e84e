"""Every kernel of the backend, in the strict modes of the simulator: no race, and no order that tells.

`races` runs first to last, so what it computes is held against `reversed`, bit by bit.
"""

import os
import pkgutil
from dataclasses import replace
from functools import cache
from importlib import import_module
from unittest import mock

import numpy as np
import pytest
from numba import config, cuda
from numba.cuda.simulator.kernel import FakeCUDAKernel

import backends.numba_cuda
from backends.numba_cuda import _token_order
from backends.numba_cuda._block import (
    MAX_THREADS,
    block_log_sum,
    block_max,
    block_sum,
    block_sums,
)
from backends.numba_cuda._machine import machine
from backends.numba_cuda.simulator import blocks
from backends.numba_cuda.simulator.mode import VARIABLE
from harness.conformance.buffers import Memory
from harness.conformance.cases.listing import cases_of
from harness.conformance.trial import prepare
from harness.plugins.loading import all_ops, load

pytestmark = pytest.mark.skipif(
    not config.ENABLE_CUDASIM, reason="kernels are compiled here, for the GPU that is there"
)

OPS = all_ops()
HOOKS = sorted(load("numba_cuda", OPS).functions.keys() & set(OPS.hooks))

FAIR = 3  # of a size: 1 or 2 would hide what neighbours do to one another
ALSO = {
    "attention_backward": [{"B": 1, "T": 35, "H": 1}],  # more than one tile of queries and of keys
    "attention_decode": [{"T": 1, "X": 66}],  # one query a row, and two runs of keys
    "attention_forward": [{"B": 1, "T": 35, "H": 1}],
    "cast": [{"P": 1025}],  # two blocks of four elements a thread
    "embedding_backward": [{"T": 23, "X": 25}],  # two chunks of rows, as the test makes them
    "matmul_backward": [{"N": 130}],  # sums along K in two parts
    "matmul_forward": [{"O": 65, "I": 35}],  # two tiles, and three steps along K
    "sgd": [{"without": ("velocity_P",)}],
}
"""Hook -> sizes, or what is left out, where other kernels run, or more of their blocks."""


@pytest.fixture(scope="module", autouse=True)
def _small_chunks():
    """Sorted rows of 64 instead of 2048: those that two chunks take would be sorted for a minute."""
    with mock.patch.object(_token_order, "MAX_CHUNK", _token_order.MIN_CHUNK):
        yield


def small_cases(hook):
    """Numbers that are all different, every size 3; where there is an `accumulate`, with it."""
    found = cases_of(OPS.op_of(hook), hook, "fp32", wide=False)
    case = max(found, key=lambda each: (each.style == "normal", each.accumulate, not each.without))
    for also in [{}, *ALSO.get(hook, [])]:
        dims = tuple((letter, also.get(letter, FAIR)) for letter, _ in case.dims)
        yield replace(case, dims=dims, without=also.get("without", ()))


@cache
def in_both_modes(hook):
    """Of each case, for `races` and `reversed`: (the memory afterwards, the kernels that ran)."""
    return [(_after(case, "races"), _after(case, "reversed")) for case in small_cases(hook)]


def _after(case, mode):
    backend = load("numba_cuda", OPS)
    op = OPS.op_of(case.hook)
    trial = prepare(op, case, backend.computes_in(op.name, case.precision))
    memory = Memory(backend.open_device(), trial.layout, backend.adapt)
    memory.reset()
    ran, launch = set(), machine().launch

    def seen(kernel, *launched):
        ran.add(kernel.py_func)
        launch(kernel, *launched)

    with (
        mock.patch.dict(os.environ, {VARIABLE: mode}),
        mock.patch.object(machine(), "launch", seen),
    ):
        blocks.install()
        backend.function(case.hook, case.precision)(*trial.arguments(memory.buffers))
    return memory.read().tobytes(), ran


@pytest.mark.parametrize("hook", HOOKS)
def test_no_two_threads_touch_one_element_and_their_order_decides_no_bit(hook):
    for (in_order, _), (backwards, _) in in_both_modes(hook):
        assert in_order == backwards


@cuda.jit
def _all_trees(out_KN, x_N):
    partial = cuda.shared.array(MAX_THREADS, np.float32)
    also_partial = cuda.shared.array(MAX_THREADS, np.float32)
    i = cuda.grid(1)
    for _ in range(2):
        out_KN[0, i] = block_sum(x_N[i], partial)
        out_KN[1, i] = block_max(x_N[i], partial)
        out_KN[2, i], out_KN[3, i] = block_sums(x_N[i], -x_N[i], partial, also_partial)
        out_KN[4, i], out_KN[5, i] = block_log_sum(x_N[i], 1, partial, also_partial)


def test_what_a_block_finds_out_together_may_follow_each_other_in_the_same_memory(monkeypatch):
    monkeypatch.setenv(VARIABLE, "races")
    blocks.install()
    x_N, out_KN = np.arange(64, dtype=np.float32), np.zeros((6, 64), np.float32)
    _all_trees[2, 32](out_KN, x_N)
    for i in (slice(0, 32), slice(32, 64)):
        x_B = x_N[i]
        expected = [x_B.sum(), x_B.max(), x_B.sum(), -x_B.sum(), x_B.max()]
        np.testing.assert_array_equal(out_KN[:5, i], np.tile(expected, (32, 1)).T)
        np.testing.assert_allclose(out_KN[5, i], np.exp(x_B - x_B.max()).sum(), rtol=1e-6)


def test_every_kernel_was_among_them():
    ran = set()
    for hook in HOOKS:
        for (_, kernels), _ in in_both_modes(hook):
            ran |= kernels
    missed = {f"{kernel.__module__}.{kernel.__name__}" for kernel in every_kernel() - ran}
    assert missed == set()


def every_kernel():
    """Those that stand in the backend's modules; attention makes some of its own for each width."""
    package = backends.numba_cuda
    names = {one.name for one in pkgutil.iter_modules(package.__path__) if not one.ispkg}
    modules = [import_module(f"{package.__name__}.{name}") for name in names - HARDWARE]
    values = [value for module in modules for value in vars(module).values()]
    return {
        value.py_func for value in values if type(value) is FakeCUDAKernel and not value._device
    }


HARDWARE = {"_compile_only", "_driver", "_gpu", "_gpu_errors", "_resources"}
