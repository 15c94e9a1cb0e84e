"""From its second step on a trainer takes no memory for arrays: all of it is the plan's."""

import tracemalloc
from dataclasses import replace

import numpy as np
import pytest

from harness.errors import PluginError
from harness.models.gpt2 import GPT2
from harness.plugins import all_ops
from harness.training.trainer import Trainer, TrainerSettings

B, T, MICRO = 8, 64, 2
MODEL = GPT2(layers=1, heads=2, channels=128, positions=T, vocab_size=200)
ACTIVATION_BYTES = 4 * B * T * 128  # the smallest of the activations: (N, C)
LOSS_BYTES = 4 * B * T

# A ufunc that reduces or casts takes 8192 elements of buffer an operand, whatever the shape.
UFUNC_BYTES = 3 * 4 * 8192
PYTHON_BYTES = LOSS_BYTES - 1  # what a step may take for numbers, tuples and views

NO_KERNELS = """
from harness import hookimpl

@hookimpl
def wrap_op(op, backend, call):
    if op == "squared_norm":
        return lambda sum_1, x_P: sum_1.fill(0)
    return lambda *arguments: None
"""


@pytest.fixture
def peak_of_a_step():
    """Bytes that a trainer's third step holds at its worst beyond what was held before it."""
    x_BT, y_BT = np.random.default_rng(0).integers(0, 200, (2, MICRO * B, T), dtype=np.int32)

    def measure(trainer):
        for _ in range(2):
            trainer.step(x_BT, y_BT, 1e-3)
        tracemalloc.start()
        try:
            before, _ = tracemalloc.get_traced_memory()
            tracemalloc.reset_peak()
            trainer.step(x_BT, y_BT, 1e-3)
            return tracemalloc.get_traced_memory()[1] - before
        finally:
            tracemalloc.stop()

    return measure


@pytest.fixture
def make(tmp_path):
    """make(ops, ...): a trainer; kernels=False: whose ops do nothing."""

    def make(ops, kernels=True, **changes):
        settings = TrainerSettings(MODEL, B, T, ops, gradient_accumulation=MICRO)
        if not kernels:
            wrapper = tmp_path / "no_kernels.py"
            wrapper.write_text(NO_KERNELS)
            settings = replace(settings, wrappers=(str(wrapper),))
        trainer = Trainer(replace(settings, **changes), all_ops())
        for arena in trainer.executor._arenas.values():
            arena.fill(0)  # so that a loss that nobody computes is finite
        return trainer

    return make


@pytest.mark.parametrize("clip_norm", [None, 1.0])
@pytest.mark.parametrize("backend", ["numpy", "numba"])
@pytest.mark.parametrize("recompute", ["none", "block"])
def test_a_later_step_allocates_no_array_data(make, peak_of_a_step, backend, clip_norm, recompute):
    try:
        trainer = make({"every_op": backend}, clip_norm=clip_norm, recompute=recompute)
    except PluginError as error:
        pytest.skip(f"backend {backend} is not whole here: {error.headline}")
    assert peak_of_a_step(trainer) < UFUNC_BYTES + 32 * 1024 < ACTIVATION_BYTES


@pytest.mark.parametrize("clip_norm", [None, 1.0])
def test_around_the_kernels_not_even_the_losses_take_memory(make, peak_of_a_step, clip_norm):
    trainer = make({"every_op": "numpy"}, kernels=False, clip_norm=clip_norm)
    assert peak_of_a_step(trainer) < PYTHON_BYTES


def test_a_loss_read_into_an_array_of_its_own_would_be_noticed(make, peak_of_a_step):
    trainer = make({"every_op": "numpy"}, kernels=False, clip_norm=None)
    trainer.micro_batches._summed = lambda loss_N: float(trainer.executor.read().sum())
    assert peak_of_a_step(trainer) > PYTHON_BYTES
