"""An executor takes its memory once, and a step is nothing but calls."""

import tracemalloc
from dataclasses import replace

import numpy as np
import pytest

from harness.errors import PluginError
from harness.models.gpt2 import GPT2, build
from harness.plugins.loading import load

MODEL = GPT2(layers=1, heads=2, channels=128, positions=64, vocab_size=200)
ROWS = 16 * 64
ACTIVATION_BYTES = 4 * ROWS * 128  # the smallest of the activations: (N, C)

EXPANDED = dict.fromkeys(("residual_layernorm", "matmul_gelu", "matmul_cross_entropy"), "expand")

# A ufunc that reduces or casts takes 8192 elements of buffer an operand, whatever the shape.
UFUNC_BYTES = 3 * 4 * 8192
THREADS = 4  # at most, that the backend uses


@pytest.fixture
def numpy_backend(ops):
    try:
        load("numpy", ops)
    except PluginError as error:
        pytest.skip(f"backend numpy is not there: {error.headline}")
    return "numpy"


def traced_peak(step):
    """Bytes that a step holds at its worst beyond what was held before it."""
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        tracemalloc.reset_peak()
        step()
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    return peak - before


def a_step(run, inputs):
    """One micro-batch, without reading anything back."""

    def step():
        for name, array in inputs.items():
            run.executor.write(name, array)
        run.executor.forward()
        run.executor.backward()
        run.executor.gather()

    return step


@pytest.mark.parametrize("mix", [{}, EXPANDED], ids=["fused", "expanded"])
def test_the_second_step_allocates_no_array_data(gpt2_run, batch, numpy_backend, mix):
    run = gpt2_run({"every_op": numpy_backend} | mix, model=MODEL, B=16, T=64)
    step = a_step(run, batch(16, 64, vocab_size=200))
    run.executor.seed(np.full(ROWS, 1 / ROWS, np.float32))
    step()
    assert traced_peak(step) < THREADS * UFUNC_BYTES + 32 * 1024 < ACTIVATION_BYTES


def test_the_measure_of_array_data_sees_a_temporary(gpt2_run, batch):
    """The referee's own test: the reference backend does allocate."""
    run = gpt2_run("reference", model=MODEL, B=16, T=64)
    step = a_step(run, batch(16, 64, vocab_size=200))
    step()
    assert traced_peak(step) > ACTIVATION_BYTES


def test_a_step_depends_on_its_inputs_and_weights_alone(gpt2_run, batch):
    """Buffers are shared between lifetimes: nothing may be left over from another step."""
    run = gpt2_run()
    first = run.step(batch(2, 5, seed=1), 0.1)
    run.step(batch(2, 5, seed=2), 0.3)
    again = run.step(batch(2, 5, seed=1), 0.1)
    np.testing.assert_array_equal(first.loss, again.loss)
    for name, gradient in first.gradients.items():
        np.testing.assert_array_equal(gradient, again.gradients[name], err_msg=name)


def test_what_is_in_the_memory_before_does_not_matter(gpt2_run, batch):
    plain, poisoned = gpt2_run(), gpt2_run()
    for arena in poisoned.executor._arenas.values():
        arena.view(np.float32)[...] = np.nan
    poisoned.parameters.flat("gradient", 0, poisoned.parameters.layout.trained)[...] = np.nan
    expected, found = plain.step(batch(2, 5)), poisoned.step(batch(2, 5))
    np.testing.assert_array_equal(found.loss, expected.loss)
    for name, gradient in expected.gradients.items():
        np.testing.assert_array_equal(found.gradients[name], gradient, err_msg=name)


def test_executors_of_one_model_share_its_weights(gpt2_run, batch, ops, micro, run_program):
    run = gpt2_run(B=2)
    program, loss = build(ops, micro, 1, 5)
    other = run_program(program, loss, train=False, parameters=run.parameters)
    inputs = batch(2, 5)
    first = {name: array[:1] for name, array in inputs.items()}
    np.testing.assert_allclose(other.forward(first), run.forward(inputs)[:5], rtol=1e-6, atol=1e-6)
    run.parameters.view("parameter", "lnfw")[...] *= 3
    np.testing.assert_allclose(other.forward(first), run.forward(inputs)[:5], rtol=1e-6, atol=1e-6)


def test_ignored_targets_have_no_loss_and_no_gradient(gpt2_run, batch):
    inputs = batch(2, 5)
    inputs["targets"][:] = -1
    result = gpt2_run().step(inputs)
    assert not result.loss.any()
    assert not any(gradient.any() for gradient in result.gradients.values())


def test_a_later_token_changes_no_earlier_loss(gpt2_run, batch):
    run = gpt2_run(B=1, T=5)
    inputs = batch(1, 5)
    before = run.forward(inputs)
    inputs["tokens"][0, 3] = (inputs["tokens"][0, 3] + 1) % 20
    after = run.forward(inputs)
    np.testing.assert_array_equal(before[:3], after[:3])
    assert before[3] != after[3]


def test_positions_of_a_row_begin_where_it_says(gpt2_run, batch):
    run = gpt2_run(B=2, T=5)
    inputs = batch(2, 5)
    before = run.forward(inputs).reshape(2, 5)
    after = run.forward(inputs | {"position": np.array([0, 3], np.int32)}).reshape(2, 5)
    np.testing.assert_array_equal(before[0], after[0])
    assert (before[1] != after[1]).all()


def test_frozen_weights_leave_the_other_gradients_as_they_are(ops, micro, batch, run_program):
    def gradients(freeze):
        program, loss = build(ops, micro, 2, 5)
        for name in freeze:
            program.parameters[name].trained = False
        return run_program(program, loss).step(batch(2, 5), 0.1).gradients

    everything = gradients([])
    some = gradients(["wte", "qkvw.0", "ln2b.1", "fcprojw.1"])
    assert set(everything) - set(some) == {"wte", "qkvw.0", "ln2b.1", "fcprojw.1"}
    for name, gradient in some.items():
        np.testing.assert_array_equal(gradient, everything[name], err_msg=name)


def test_a_model_of_one_layer_and_one_row_trains(gpt2_run, batch, micro):
    model = replace(micro, layers=1)
    result = gpt2_run(model=model, B=1, T=1).step(batch(1, 1) | {"targets": np.array([[3]], "i4")})
    assert np.isfinite(result.loss).all() and result.gradients["wte"].any()
