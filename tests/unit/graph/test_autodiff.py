"""The backward follows from names alone; finite differences in float64 are its referee."""

import numpy as np
import pytest

from harness.contract import In, Out, read_op
from harness.contract.precision import Precision
from harness.errors import ConfigError
from harness.graph.autodiff import differentiate
from harness.graph.program import Program
from harness.models.gpt2 import GPT2, build
from harness.planning.planner import make_plan
from harness.plugins.dispatch import Dispatch

STEP = 1e-4  # central differences of order h^4: 1e-16 of truncation, 1e-12 of rounding


def uniform(rng, shape):
    return rng.uniform(-1, 1, shape).astype(np.float32)


@pytest.fixture
def program(ops):
    return Program(ops)


@pytest.fixture
def gradients_in_float64(evaluate):
    """(values, gradients by name) of a program at random parameters, seeded by random dloss."""

    def compute(program, loss, inputs):
        rng = np.random.default_rng(1)
        backward = differentiate(program, loss)
        values = {program.inputs[name]: array for name, array in inputs.items()}
        for parameter in program.parameters.values():
            values[parameter] = rng.uniform(-1, 1, parameter.shape)
        values[backward.seed] = rng.uniform(-1, 1, loss.root.shape)
        for filler in backward.fillers:
            values[filler] = np.zeros(filler.shape)
        given = dict(values)
        evaluate(program.calls, values)
        evaluate(backward.calls, values)
        gradients = {name: values[tensor] for name, tensor in backward.gradients.items()}
        return given, gradients, backward

    return compute


@pytest.fixture
def slopes(evaluate):
    """The slope of sum(dloss * loss) in some elements of a parameter, by finite differences."""

    def compute(program, loss, given, seed, parameter, elements):
        def objective(index, step):
            values = dict(given)
            values[parameter] = given[parameter].copy()
            values[parameter][index] += step
            evaluate(program.calls, values)
            return float((values[loss.root] * given[seed]).sum())

        def slope(index):
            near = objective(index, STEP) - objective(index, -STEP)
            far = objective(index, 2 * STEP) - objective(index, -2 * STEP)
            return (8 * near - far) / (12 * STEP)

        return np.array([slope(index) for index in elements])

    return compute


@pytest.fixture
def check(gradients_in_float64, slopes):
    """Hold every gradient of a program to finite differences, in up to five elements of each."""

    def check(program, loss, inputs):
        given, gradients, backward = gradients_in_float64(program, loss, inputs)
        assert set(gradients) == {n for n, p in program.parameters.items() if p.trained}
        rng = np.random.default_rng(2)
        for name, gradient in gradients.items():
            parameter = program.parameters[name]
            drawn = rng.choice(parameter.size, min(5, parameter.size), replace=False)
            elements = [np.unravel_index(d, parameter.shape) for d in drawn]
            elements.append(np.unravel_index(np.abs(gradient).argmax(), parameter.shape))
            found = np.array([gradient[index] for index in elements])
            expected = slopes(program, loss, given, backward.seed, parameter, elements)
            scale = np.abs(gradient).max()
            assert scale > 0, name
            np.testing.assert_allclose(found, expected, rtol=0, atol=1e-7 * scale, err_msg=name)
        return gradients, backward

    return check


GPT2_MIXES = {
    "fused": {},
    "expanded": dict.fromkeys(
        ("residual_layernorm", "matmul_gelu", "matmul_cross_entropy"), "expand"
    ),
}


@pytest.mark.parametrize("mix", GPT2_MIXES)
def test_all_gradients_of_gpt2_are_the_slopes_of_its_loss(gpt2_run, batch, check, mix):
    model = GPT2(layers=2, heads=2, channels=8, positions=6, vocab_size=7)
    run = gpt2_run({"every_op": "reference"} | GPT2_MIXES[mix], model=model, B=2, T=4)
    assert bool(run.plan.expanded) == (mix == "expanded")
    program = run.plan.program
    loss = run.plan.results[0].version.tensor
    gradients, _ = check(program, loss, batch(2, 4, vocab_size=7))
    assert len(gradients) == 2 + 2 * 12 + 2


@pytest.mark.parametrize("mix", GPT2_MIXES)
def test_plan_and_executor_compute_the_gradients_of_the_formulas(gpt2_run, batch, evaluate, mix):
    run = gpt2_run({"every_op": "reference"} | GPT2_MIXES[mix])
    inputs = batch(2, 5)
    found = run.step(inputs, weight=0.1)
    program, loss = run.plan.program, run.plan.results[0].version.tensor
    backward = differentiate(program, loss)
    values = {program.inputs[name]: array for name, array in inputs.items()}
    for name, array in run.parameters.to_host().items():
        values[program.parameters[name]] = array.astype(np.float64)
    values[backward.seed] = np.full(loss.shape, 0.1)
    evaluate(program.calls, values)
    evaluate(backward.calls, values)
    np.testing.assert_allclose(found.loss, values[loss], rtol=1e-6, atol=1e-6)
    for name, tensor in backward.gradients.items():
        error = np.linalg.norm(found.gradients[name] - values[tensor])
        # float32 between the ops, of which some twenty stand in a row
        assert error <= 2e-6 * np.linalg.norm(values[tensor]), name


def test_the_gradients_of_two_consumers_are_summed(program, check):
    x = program.input("x", (3, 4), "float32")
    h = program.matmul(x, program.parameter("w", (5, 4), uniform), None)
    loss = program.residual(program.gelu(h), program.softmax(h, 5))
    _, backward = check(program, loss, {"x": np.random.default_rng(0).normal(size=(3, 4))})
    hooks = [call.hook for call in backward.calls]
    assert hooks.count("residual_forward") == 1
    assert "residual_backward" not in hooks


def test_the_gradients_of_four_consumers_are_summed(program, check):
    x = program.input("x", (3, 4), "float32")
    h = program.matmul(x, program.parameter("w", (4, 4), uniform), None)
    # h is read by gelu, by both sides of a residual, and by another residual.
    loss = program.gelu(h) + (h + h) + h
    _, backward = check(program, loss, {"x": np.random.default_rng(0).normal(size=(3, 4))})
    assert [call.hook for call in backward.calls].count("residual_forward") == 3


def test_a_parameter_that_is_used_twice_accumulates(program, check, run_program):
    x = program.input("x", (3, 4), "float32")
    w = program.parameter("w", (4, 4), uniform)
    h = program.gelu(program.matmul(x, w, None))
    loss = program.matmul(h, w, None)
    x_NC = np.random.default_rng(0).normal(size=(3, 4))
    check(program, loss, {"x": x_NC})
    run = run_program(program, loss)
    accumulates = [s.arguments["accumulate"] for s in run.plan.backward if "matmul" in s.hook]
    assert accumulates == [False, True]


def test_the_tied_embedding_accumulates_from_its_second_backward_on(gpt2_run):
    backward = gpt2_run().plan.backward
    made = [
        (step.hook, step.arguments["accumulate"])
        for step in backward
        for view in step.views
        if view.version.tensor.name == "dwte"
    ]
    assert made == [("matmul_cross_entropy_backward", False), ("embedding_backward", True)]


def test_a_frozen_parameter_gets_no_gradient_and_its_d_is_left_out(program, check):
    x = program.input("x", (3, 4), "float32")
    frozen = program.parameter("frozen", (4, 4), uniform, trained=False)
    bias = program.parameter("bias", (4,), uniform)
    loss = program.gelu(program.matmul(x, frozen, bias))
    gradients, backward = check(program, loss, {"x": np.ones((3, 4))})
    assert set(gradients) == {"bias"}
    (call,) = (call for call in backward.calls if call.op.name == "matmul")
    assert call.arguments["dweight_OI"] is None
    assert call.arguments["dx_NI"] is None  # an input needs none either
    assert call.arguments["dbias_O"] is not None


def test_nothing_is_differentiated_before_the_first_trained_parameter(program):
    x = program.input("x", (3, 4), "float32")
    frozen = program.parameter("frozen", (4, 4), uniform, trained=False)
    trained = program.parameter("trained", (4, 4), uniform)
    loss = program.matmul(program.gelu(program.matmul(x, frozen, None)), trained, None)
    assert [call.hook for call in differentiate(program, loss).calls] == ["matmul_backward"]


def test_a_left_out_bias_has_a_left_out_gradient(program, check):
    x = program.input("x", (3, 4), "float32")
    loss = program.matmul(x, program.parameter("w", (5, 4), uniform), None)
    _, backward = check(program, loss, {"x": np.ones((3, 4))})
    assert backward.calls[0].arguments["dbias_O"] is None


def test_a_reshape_passes_its_gradient(program, check):
    x = program.input("x", (6, 4), "float32")
    h = program.matmul(x, program.parameter("w", (6, 4), uniform), None)
    # (6, 6) as (2, 3, 3, 1, 2): B, T, 3, H, D of an attention, whose result is read as rows.
    mixed = program.attention(h.reshape(2, 3, 3, 1, 2)).reshape(6, 2)
    loss = program.matmul(mixed, program.parameter("v", (3, 2), uniform), None)
    check(program, loss, {"x": np.random.default_rng(0).normal(size=(6, 4))})


def test_gradients_of_different_shapes_of_one_tensor_are_summed(program, check):
    x = program.input("x", (6, 4), "float32")
    h = program.matmul(x, program.parameter("w", (4, 4), uniform), None)
    loss = program.residual(program.gelu(h.reshape(3, 8)).reshape(6, 4), h)
    check(program, loss, {"x": np.random.default_rng(0).normal(size=(6, 4))})


def test_a_result_that_nobody_reads_has_a_zero_gradient(program, check, run_program):
    """residual_layernorm_backward insists on dout_NC, which here nothing reaches."""
    x = program.input("x", (3, 4), "float32")
    h = program.matmul(x, program.parameter("w", (4, 4), uniform), None)
    weight, bias = (program.parameter(n, (4,), uniform, trained=False) for n in ("lw", "lb"))
    total, _ = program.residual_layernorm(h, h, weight, bias, 1e-5)
    loss = program.gelu(total)
    _, backward = check(program, loss, {"x": np.random.default_rng(0).normal(size=(3, 4))})
    assert [filler.shape for filler in backward.fillers] == [(3, 4)]
    run = run_program(program, loss)
    assert [step.hook for step in run.plan.backward].count("zero") == 1
    assert np.isfinite(run.step({"x": np.ones((3, 4), np.float32)}).gradients["w"]).all()


def test_an_op_without_a_backward_stops_a_gradient_that_must_pass(ops, op_module):
    def round_up(out_N: Out, x_N: In): ...

    ops.add(read_op(op_module("round_up", round_up)), "the test")
    program = Program(ops)
    x = program.input("x", (3, 4), "float32")
    loss = program.round_up(program.matmul(x, program.parameter("w", (4, 4), uniform), None))
    with pytest.raises(ConfigError, match="round_up has no backward") as caught:
        differentiate(program, loss)
    assert caught.value.slug == "not-differentiable"


def test_an_op_without_a_backward_is_no_harm_where_no_gradient_passes(ops, op_module):
    def round_up(out_N: Out, x_N: In): ...

    ops.add(read_op(op_module("round_up", round_up)), "the test")
    program = Program(ops)
    x = program.round_up(program.input("x", (12,), "float32")).reshape(3, 4)
    loss = program.matmul(x, program.parameter("w", (4, 4), uniform), None)
    assert set(differentiate(program, loss).gradients) == {"w"}


def test_a_parameter_read_as_an_activation_is_refused_for_its_gradient_would_be_lost(program):
    x = program.input("x", (3, 4), "float32")
    h = program.matmul(x, program.parameter("w", (4, 4), uniform), None)
    loss = program.residual(h, program.parameter("shift", (3, 4), uniform))
    with pytest.raises(ConfigError, match="the parameter shift is read as an activation"):
        differentiate(program, loss)


def test_a_frozen_parameter_may_be_read_as_an_activation(program, check):
    x = program.input("x", (3, 4), "float32")
    h = program.matmul(x, program.parameter("w", (4, 4), uniform), None)
    loss = program.residual(h, program.parameter("shift", (3, 4), uniform, trained=False))
    check(program, loss, {"x": np.ones((3, 4))})


def test_an_activation_in_the_place_of_a_parameter_is_refused(program):
    x = program.input("x", (4, 4), "float32")
    w = program.matmul(x, program.parameter("w", (4, 4), uniform), None)
    with pytest.raises(ConfigError, match="matmul takes a parameter where it is given"):
        differentiate(program, program.matmul(x, w, None))


def test_a_loss_without_a_trained_parameter_is_refused(ops, micro):
    program, loss = build(ops, micro, 1, 2)
    for parameter in program.parameters.values():
        parameter.trained = False
    with pytest.raises(ConfigError, match="depends on no trained parameter"):
        make_plan(program, loss, Dispatch(ops, {"every_op": "reference"}), Precision(), train=True)
