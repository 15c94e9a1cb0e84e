"""A device of its own, mixed with the host: every copy is planned, refused unless allowed, and right."""

from pathlib import Path

import numpy as np
import pytest

from harness.errors import ConfigError
from harness.execution.parameters import Parameters
from harness.models.gpt2 import build
from harness.plugins.loading import load
from harness.training.trainer import Trainer, TrainerSettings

TOY = str(Path(__file__).parents[1] / "toy_device.py")
UPDATE = ("adamw", "squared_norm", "guard", "clip_scale")
MIXES = {
    "one op away": {"every_op": "reference", "attention": TOY},
    "one half away": {"every_op": "reference", "layernorm_backward": TOY},
    "the embedding away": {"every_op": "reference", "embedding": TOY},
    "all but one away": {"every_op": TOY, "attention": "reference", "adamw": "reference"},
    "the loss away": {"every_op": "reference", "cross_entropy": TOY, "matmul": TOY},
}


@pytest.fixture(params=MIXES)
def mix(request):
    return MIXES[request.param]


def close(found, expected):
    assert found.keys() == expected.keys()
    for name, gradient in expected.items():
        error = np.linalg.norm(found[name] - gradient) / np.linalg.norm(gradient)
        assert error < 1e-6, name  # the same formulas; sums of gradients in another order


def test_everything_on_the_device_needs_no_copies(gpt2_run, batch):
    expected = gpt2_run().step(batch(2, 5), 0.1)
    run = gpt2_run(TOY, home="toy")
    assert run.plan.copies == []
    found = run.step(batch(2, 5), 0.1)
    np.testing.assert_array_equal(found.loss, expected.loss)
    close(found.gradients, expected.gradients)


def test_a_mix_of_devices_is_refused_and_lists_its_copies(gpt2_run, mix):
    with pytest.raises(ConfigError, match="this mix of backends needs") as caught:
        gpt2_run(mix)
    assert caught.value.slug == "transfer-refused"
    assert "bytes a step" in caught.value.headline
    listed = caught.value.facts["copies"].splitlines()
    assert all(" on host -> toy" in one or " on toy -> host" in one for one in listed[:5])
    assert caught.value.facts["do"].startswith("transfer=allow")


def test_the_refusal_counts_what_an_allowed_plan_has(gpt2_run, mix):
    plan = gpt2_run(mix, transfer="allow").plan
    nbytes = sum(step.views[0].version.nbytes for step in plan.copies)
    with pytest.raises(ConfigError, match=f"needs {len(plan.copies)} copies") as caught:
        gpt2_run(mix)
    assert f"{nbytes:,} bytes" in caught.value.headline


def test_an_allowed_mix_gives_the_same_losses_and_gradients(gpt2_run, batch, mix):
    plain = gpt2_run()
    mixed = gpt2_run(mix, transfer="allow")
    assert mixed.plan.copies
    for seed in (0, 1):  # the second step finds the first one's values in every buffer
        inputs = batch(2, 5, seed=seed)
        expected, found = plain.step(inputs, 0.1), mixed.step(inputs, 0.1)
        np.testing.assert_allclose(found.loss, expected.loss, rtol=1e-6, atol=1e-6)
        close(found.gradients, expected.gradients)


def test_home_may_be_the_device(gpt2_run, batch):
    choices = {"every_op": TOY, "attention": "reference", "embedding_backward": "reference"}
    expected = gpt2_run().step(batch(2, 5), 0.1)
    run = gpt2_run(choices, home="toy", transfer="allow")
    found = run.step(batch(2, 5), 0.1)
    np.testing.assert_allclose(found.loss, expected.loss, rtol=1e-6, atol=1e-6)
    close(found.gradients, expected.gradients)


def test_micro_batches_accumulate_on_each_device_and_are_gathered_once(gpt2_run, batch):
    mix = {"every_op": "reference", "embedding": TOY}
    inputs = batch(4, 5)
    expected = gpt2_run(B=4).step(inputs, 0.05).gradients
    run = gpt2_run(mix, transfer="allow")
    for first, rows in ((True, slice(0, 2)), (False, slice(2, 4))):
        for name, array in inputs.items():
            run.executor.write(name, array[rows])
        run.executor.seed(np.full(10, 0.05, np.float32))
        run.executor.forward()
        run.executor.backward(first)
    run.executor.gather()
    close(run.parameters.to_host("gradient"), expected)


def test_the_executor_makes_the_copies_of_the_plan_and_no_others(gpt2_run, batch):
    run = gpt2_run({"every_op": "reference", "attention": TOY}, transfer="allow")
    run.step(batch(2, 5))
    copies = run.dispatch.backend(TOY).module.copies
    copies.clear()
    run.executor.forward()
    run.executor.backward()
    in_plan = [step for step in run.plan.forward + run.plan.backward if step.kind == "copy"]
    to_toy = [step for step in in_plan if step.views[1].version.device == "toy"]
    assert copies["from_host"] == len(to_toy) > 0
    assert copies["to_host"] == len(in_plan) - len(to_toy) > 0


def test_a_tensor_is_copied_once_however_many_calls_read_it(gpt2_run):
    plan = gpt2_run({"every_op": TOY, "attention": "reference"}, home="toy", transfer="allow").plan
    copied = [
        (step.views[0].version.tensor.name, step.views[1].version.device) for step in plan.copies
    ]
    assert len(copied) == len(set(copied))
    # qkv goes to the host once, for the forward and the backward of each of two layers.
    assert len([name for name, to in copied if name.startswith("matmul") and to == "host"]) == 2


def test_weights_are_copied_after_the_optimizer_and_not_in_each_step(gpt2_run, batch):
    run = gpt2_run({"every_op": "reference", "matmul": TOY}, transfer="allow")
    moved = [step for step in run.plan.forward if step.views[0].version.kind == "parameter"]
    assert [step for step in moved if step.kind == "copy"] == []
    assert {step.kind for step in run.plan.refresh} == {"copy"}
    before = run.forward(batch(2, 5))
    run.parameters.view("parameter", "qkvw.0")[...] *= -1
    run.executor.refresh()
    assert np.abs(run.forward(batch(2, 5)) - before).max() > 1e-4


def test_a_sum_of_gradients_needs_a_residual_on_their_home(gpt2_run):
    """wte's gradient is made on both devices; the only residual that was chosen is on the toy."""
    mix = {"every_op": "reference", "embedding": TOY, "residual_forward": TOY}
    with pytest.raises(ConfigError, match="dwte is made on two devices") as caught:
        gpt2_run(mix, transfer="allow")
    assert caught.value.slug == "sum-elsewhere"


def test_bf16_casts_before_it_copies(gpt2_run, batch):
    mix = {"every_op": "reference", "attention_backward": TOY}
    run = gpt2_run(mix, precision="bf16", transfer="allow")
    widths = {
        step.views[0].version.tensor.name: step.views[0].version.dtype.itemsize
        for step in run.plan.copies
    }
    # Statistics stay float32; everything else travels in two bytes.
    statistics = {name for name in widths if name.endswith(".lse")}
    assert len(statistics) == 2
    assert {name for name, width in widths.items() if width == 4} == statistics
    expected = gpt2_run(precision="bf16").step(batch(2, 5), 0.1)
    close(run.step(batch(2, 5), 0.1).gradients, expected.gradients)


def test_a_backend_judged_alone_takes_numpy_arrays_to_its_device_and_back(ops):
    x = np.linspace(-2, 2, 12, dtype=np.float32).reshape(3, 4)
    found, expected = np.empty_like(x), np.empty_like(x)
    load(TOY, ops).call("gelu_forward", found, x)
    load("reference", ops).call("gelu_forward", expected, x)
    np.testing.assert_array_equal(found, expected)


def test_parameters_on_the_device_have_the_same_bits(ops, micro, gpt2_run):
    program, _ = build(ops, micro, 1, 2)
    there = Parameters(program, load(TOY, ops).open_device())
    there.initialise(0)
    for name, values in gpt2_run().parameters.to_host().items():
        np.testing.assert_array_equal(there.to_host()[name], values)


@pytest.mark.parametrize(
    "choices",
    [{"every_op": TOY}, {"every_op": TOY} | dict.fromkeys(UPDATE, "reference")],
    ids=["home on the device", "home on the host"],
)
def test_training_on_the_device_gives_the_losses_of_the_host(ops, micro, batch, choices):
    inputs = batch(2, 5)

    def losses(chosen):
        settings = TrainerSettings(micro, 2, 5, chosen, transfer="allow")
        trainer = Trainer(settings, ops)
        return [trainer.step(inputs["tokens"], inputs["targets"], 0.01).loss for _ in range(4)]

    np.testing.assert_allclose(losses(choices), losses({"every_op": "reference"}), rtol=1e-6)
