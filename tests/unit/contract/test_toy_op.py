"""A plugin may declare an op: it is loaded, differentiated and trained like the core's own."""

from dataclasses import replace

import numpy as np
import pytest

from harness.errors import ConfigError, OpNotImplemented, PluginError
from harness.plugins import all_ops
from harness.training.trainer import Trainer, TrainerSettings

SQUARED_RELU = '''
"""Squared ReLU.

    out = max(x, 0)^2        dx = 2 dout max(x, 0)
"""
import numpy as np
from harness.contract import In, Magnitude, Out, hookspec

SHAPES = ({"N": 256, "F": 3072},)

@hookspec
def squared_relu_forward(out_NF: Out, x_NF: In) -> None:
    """Fill out_NF with max(x_NF, 0)^2."""

@hookspec
def squared_relu_backward(dx_NF: Out, dout_NF: In, x_NF: In) -> None:
    """Fill dx_NF with 2 dout_NF max(x_NF, 0)."""

def reference_forward(x_NF):
    return (np.maximum(x_NF, 0) ** 2,)

def reference_backward(dout_NF, x_NF):
    return (2 * dout_NF * np.maximum(x_NF, 0),)

def magnitude_forward(x_NF):
    return (Magnitude(x_NF**2, 1),)

def magnitude_backward(dout_NF, x_NF):
    return (Magnitude(2 * np.abs(dout_NF * x_NF), 1),)

def flops_forward(N, F):
    return 2 * N * F

def flops_backward(N, F):
    return 3 * N * F
'''

KERNEL = """
import numpy as np

@hookimpl
def squared_relu_forward(out_NF, x_NF):
    np.maximum(x_NF, 0, out=out_NF)
    out_NF *= out_NF

@hookimpl
def squared_relu_backward(dx_NF, dout_NF, x_NF):
    np.maximum(x_NF, 0, out=dx_NF)
    dx_NF *= dout_NF
    dx_NF *= 2
"""


@pytest.fixture
def ops(install):
    install("squares", "0.3", SQUARED_RELU, ops=["squared_relu"])
    return all_ops()


@pytest.fixture
def model(micro):
    return replace(micro, activation="squared_relu")


def test_a_declared_op_is_known_before_it_is_loaded(ops):
    assert "squared_relu" in ops
    assert "squared_relu" not in list(ops)
    op = ops["squared_relu"]
    assert op.hooks == ("squared_relu_forward", "squared_relu_backward")
    assert op.summary == "Squared ReLU."
    assert ops.half("squared_relu_forward").count_flops({"N": 2, "F": 3}) == 12


def test_a_half_of_a_declared_op_is_a_configuration_key(ops, gpt2_run, model, backend_file):
    path = backend_file("kernel", KERNEL)
    choices = {"every_op": "reference", "squared_relu_backward": path}
    run = gpt2_run(choices, ops=ops, model=model)
    backends = {
        step.hook: step.choice.backend.name for step in run.plan.steps if "relu" in step.hook
    }
    assert backends == {"squared_relu_forward": "reference", "squared_relu_backward": path}


def test_a_declared_op_is_differentiated_by_its_names(ops, gpt2_run, model, batch):
    run = gpt2_run(ops=ops, model=model)
    result = run.step(batch(2, 5), 0.1)
    assert all(gradient.any() for gradient in result.gradients.values())
    # Along the gradient of fcw.0, which reaches the loss through the op, the loss has that slope.
    weight, gradient = run.parameters.view("parameter", "fcw.0"), result.gradients["fcw.0"]
    direction = gradient / np.linalg.norm(gradient)
    step, start = np.float32(0.05), weight.copy()
    weight[...] = start + step * direction
    above = run.forward(batch(2, 5)).sum(dtype=np.float64)
    weight[...] = start - step * direction
    below = run.forward(batch(2, 5)).sum(dtype=np.float64)
    slope = 0.1 * (above - below) / (2 * step)
    # Float32 losses of about 3, in ten rows: 1e-6 of rounding over a step of 0.1.
    np.testing.assert_allclose(slope, np.linalg.norm(gradient), rtol=0.02)


def test_a_declared_op_trains_and_a_kernel_gives_the_losses_of_the_reference(
    ops, model, batch, backend_file
):
    inputs = batch(2, 5)

    def losses(choices):
        trainer = Trainer(TrainerSettings(model, 2, 5, choices), ops)
        return [trainer.step(inputs["tokens"], inputs["targets"], 0.01).loss for _ in range(5)]

    reference = losses({"every_op": "reference"})
    path = backend_file("kernel", KERNEL)
    kernel = losses({"every_op": "reference", "squared_relu": path})
    np.testing.assert_allclose(kernel, reference, rtol=1e-5)
    assert reference[-1] < reference[0] - 0.1


def test_a_backend_without_the_declared_op_says_who_has_it(ops, gpt2_run, model):
    with pytest.raises(OpNotImplemented) as caught:
        gpt2_run("python", ops=ops, model=model)
    assert "does not implement squared_relu_forward" in caught.value.headline
    assert caught.value.facts["implemented by"] == "reference"
    assert "squares_plugin.py says what it must do" in caught.value.facts["or write it"]


def test_a_kernel_of_a_declared_op_is_checked_against_its_specification(
    ops, gpt2_run, model, backend_file
):
    path = backend_file("kernel", KERNEL.replace("(out_NF, x_NF)", "(x_NF, out_NF)"))
    with pytest.raises(PluginError, match=r"squared_relu_forward .* its arguments differ"):
        gpt2_run({"every_op": "reference", "squared_relu": path}, ops=ops, model=model)


def test_a_declared_op_that_forgets_a_gradient_is_refused_when_it_is_named(install):
    source = SQUARED_RELU.replace("(dx_NF: Out, dout_NF: In", "(dwrong_NF: Out, dout_NF: In")
    install("careless", "0.1", source, ops=["squared_relu"])
    ops = all_ops()
    assert "squared_relu" in ops
    with pytest.raises(PluginError, match="it has no dx_NF, the gradient of x_NF"):
        ops["squared_relu"]


def test_an_entry_point_of_another_name_than_its_op_is_refused(install):
    install("squares", "0.3", SQUARED_RELU, ops=["squares"])
    with pytest.raises(PluginError, match="the op file of squares has no squares"):
        all_ops()["squares"]


def test_a_declared_op_under_a_core_name_never_replaces_the_core(install):
    install("squares", "0.3", SQUARED_RELU.replace("squared_relu", "gelu"), ops=["gelu"])
    assert all_ops()["gelu"].file.endswith("harness/ops/gelu.py")


def test_an_activation_that_is_no_op_names_the_nearest(ops, gpt2_run, micro):
    with pytest.raises(ConfigError) as caught:
        gpt2_run(ops=ops, model=replace(micro, activation="squared_rleu"))
    assert caught.value.facts["nearest"] == "squared_relu"
