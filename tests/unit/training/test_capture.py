"""A captured step gives the bits of an uncaptured one, and is captured only where every call can be."""

from pathlib import Path

import numpy as np
import pytest

from backends.cupy_cuda._machine import machine
from harness.contract.precision import Precision
from harness.training.device_step import EAGER_STEPS

LATE = str(Path(__file__).parents[1] / "late_device.py")
TOY = str(Path(__file__).parents[1] / "toy_device.py")
ADAMW = {"optimizer": {"name": "adamw"}, "clip_norm": 0.5}
RATES = [0.02, 0.01, 0.005, 0.03, 0.002, 0.04]
UNSTATED = """
from tests.unit.toy_device import arrays, computes, device, gelu_backward, gelu_forward
"""
WRAPPER = """
from harness import hookimpl

@hookimpl
def wrap_op(op, backend, call):
    return call
"""


@pytest.fixture
def gpu_trainer(make_trainer):
    """A trainer on the emulated GPU, whose graphs replay the addresses and scalars of their capture."""

    def make(micro=1, **changes):
        settings = {**ADAMW, **changes}
        return make_trainer(6 // micro, "cupy", gradient_accumulation=micro, **settings)

    return make


def train(trainer, batch, rates=RATES):
    """The results of a step at each learning rate, with other tokens in each."""
    x_BT, y_BT = batch
    return [trainer.step(np.roll(x_BT, n), np.roll(y_BT, n), r) for n, r in enumerate(rates)]


def same_state(first, second):
    first, second = first.state(), second.state()
    return all(
        np.array_equal(array, second[group][name])
        for group, tensors in first.items()
        for name, array in tensors.items()
    )


@pytest.mark.parametrize(("micro", "policy"), [(1, "fp32"), (1, "bf16"), (3, "bf16")])
def test_a_captured_step_gives_the_bits_of_an_uncaptured_one(
    gpu_trainer, six_sequences, micro, policy
):
    captured, plain = (
        gpu_trainer(micro, capture=capture, precision=Precision(policy))
        for capture in ("auto", "off")
    )
    assert (captured.device_step.off, plain.device_step.off) == (None, "capture=off")
    # The learning rate, the corrections and the clip scale are others in each step.
    assert train(captured, six_sequences) == train(plain, six_sequences)
    assert same_state(captured, plain)


def test_a_learning_rate_reaches_a_step_that_was_captured(gpu_trainer, six_sequences):
    one, other = gpu_trainer(), gpu_trainer()
    train(one, six_sequences)
    train(other, six_sequences, [*RATES[:-1], 2 * RATES[-1]])
    assert not same_state(one, other)


@pytest.mark.parametrize("micro", [1, 3])
def test_after_three_steps_the_host_launches_nothing_by_itself(
    gpu_trainer, six_sequences, monkeypatch, micro
):
    trainer = gpu_trainer(micro)
    launched = []
    call, capture = machine().call, machine().capture
    captures = []
    monkeypatch.setattr(machine(), "call", lambda f: (launched.append(f), call(f))[1])
    monkeypatch.setattr(machine(), "capture", lambda c: (captures.append(c), capture(c))[1])
    counts = []
    for rate in RATES:
        launched.clear()
        trainer.step(*six_sequences, rate)
        counts.append(len(launched))
    assert EAGER_STEPS == 3 and min(counts[:3]) > 20
    assert counts[3] > 20 and counts[4:] == [0, 0]  # recorded once, and replayed from then on
    assert len(captures) == (1 if micro == 1 else 3)


@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_the_step_of_the_capture_is_made_once(gpu_trainer, six_sequences, momentum):
    sgd = {"name": "sgd", "momentum": momentum, "weight_decay": 0.1}
    captured, plain = (gpu_trainer(optimizer=sgd, capture=c) for c in ("auto", "off"))
    for trainer in (captured, plain):
        train(trainer, six_sequences, RATES[: EAGER_STEPS + 1])
    assert same_state(captured, plain)


def test_a_captured_trainer_goes_on_from_a_state_that_it_is_given(gpu_trainer, six_sequences):
    first, second = gpu_trainer(), gpu_trainer(seed=9)
    train(first, six_sequences)
    train(second, six_sequences)
    second.restore(first.state(), updates=first.optimizer.t)
    assert train(second, six_sequences) == train(first, six_sequences)
    assert same_state(first, second)


def test_validation_between_captured_steps_changes_nothing(gpu_trainer, six_sequences):
    first, second = gpu_trainer(), gpu_trainer()
    validator = first.another(2, 8)
    losses = []
    for rate in RATES:
        first.step(*six_sequences, rate)
        second.step(*six_sequences, rate)
        losses.append(first.mean_loss(validator, [(six_sequences[0][:2], six_sequences[1][:2])]))
    assert same_state(first, second)
    assert len(set(losses)) == len(RATES)  # each is of the weights as they are by then


def test_a_step_that_is_not_finite_changes_nothing_when_it_is_replayed(gpu_trainer, six_sequences):
    captured, plain = (
        gpu_trainer(on_nonfinite="skip", capture=capture) for capture in ("auto", "off")
    )
    for trainer in (captured, plain):
        train(trainer, six_sequences)
        good = trainer.parameters.to_host()
        broken = {name: array.copy() for name, array in good.items()}
        broken["lnfw"][0] = np.inf
        trainer.parameters.from_host(broken)
        assert trainer.step(*six_sequences, 0.1).skipped
        assert np.array_equal(trainer.parameters.to_host()["wpe"], good["wpe"])
        trainer.parameters.from_host(good)
        train(trainer, six_sequences)
    assert captured.optimizer.t == 2 * len(RATES)
    assert same_state(captured, plain)


@pytest.mark.parametrize(
    ("settings", "why"),
    [
        ({"backend": "numpy"}, "the device host has no graphs"),
        ({"backend": TOY}, "the device toy has no graphs"),
        ({"backend": LATE, "capture": "off"}, "capture=off"),
        (
            {"backend": LATE, "chosen": {"gelu": "reference"}, "transfer": "allow"},
            "copies between devices",
        ),
        ({"backend": LATE, "unstated": True}, "gelu.py does not state that it is capturable"),
        ({"backend": LATE, "wrapped": True}, "a wrapper is to see every call"),
    ],
    ids=["host", "no hook", "off", "copies", "unstated", "wrapper"],
)
def test_what_cannot_be_captured_is_called_as_ever_and_says_why(
    make_trainer, six_sequences, tmp_path, settings, why
):
    settings = dict(settings)
    if settings.pop("wrapped", False):
        (tmp_path / "wrapper.py").write_text(WRAPPER)
        settings["wrappers"] = (str(tmp_path / "wrapper.py"),)
    if settings.pop("unstated", False):
        (tmp_path / "gelu.py").write_text(UNSTATED)
        settings["chosen"] = {"gelu": str(tmp_path / "gelu.py")}
    trainer = make_trainer(6, **ADAMW, **settings)
    assert why in trainer.device_step.off
    assert trainer.device_step.capture == f"off: {trainer.device_step.off}"
    if settings["backend"] == LATE:
        trainer.plan.home.module.asked.clear()
    assert len({result.loss for result in train(trainer, six_sequences)}) == len(RATES)
    if settings["backend"] == LATE:
        assert "replay" not in trainer.plan.home.module.asked


def test_the_copies_are_counted(make_trainer):
    mixed = {"chosen": {"gelu": "reference"}, "transfer": "allow"}
    trainer = make_trainer(6, LATE, **ADAMW, **mixed)
    # What goes into GELU and comes out of it, and the gradients of both.
    assert trainer.device_step.off == "4 copies between devices"


def test_losses_on_another_device_are_guarded_at_home(make_trainer, six_sequences):
    away = {"chosen": {"cross_entropy": "reference"}, "transfer": "allow"}
    mixed, plain = make_trainer(6, LATE, **ADAMW, **away), make_trainer(6, LATE, **ADAMW)
    assert mixed.results_late == 0
    found, expected = train(mixed, six_sequences), train(plain, six_sequences)
    assert [r.loss for r in found] == pytest.approx([r.loss for r in expected], rel=1e-5)
