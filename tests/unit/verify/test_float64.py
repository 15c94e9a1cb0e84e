"""The referee itself: against PyTorch in float64 (committed goldens), slopes, AdamW by hand."""

import importlib.util
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from harness.errors import ResourceError
from harness.models.gpt2 import GPT2
from harness.models.kinds import tensor_names
from harness.planning import memory_budget as memory_need
from harness.training.optimizer import OptimizerSettings
from harness.verify import float64
from harness.verify.float64 import Float64Model
from harness.verify.seeded_model import SeededModel

GOLDEN = Path(__file__).parents[2] / "integration" / "golden" / "make.py"
# The goldens' arrays are float64 rounded once to float32; their losses are float64.
ROUNDED = 1e-7
EXACT = 1e-12

MODEL = GPT2(layers=2, heads=2, channels=8, positions=7, vocab_size=11)


def _make_module():
    spec = importlib.util.spec_from_file_location("golden_make", GOLDEN)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


make = _make_module()


@pytest.mark.parametrize("name", make.SHAPES)
def test_the_referee_has_pytorchs_logits_loss_and_gradients(name):
    case, answer = make.read(name)
    model, source = _stored(case)
    referee = Float64Model(source, case.shape.B, case.shape.T, [])
    loss = referee.forward(case.tokens, case.targets)
    referee.backward()
    assert loss == pytest.approx(answer.losses[0], rel=EXACT)
    assert _relative(referee.logits, answer.logits) < ROUNDED
    for kind in make.KINDS:
        found = [referee.gradients[name] for name in tensor_names(model, kind)]
        found = np.concatenate([gradient.ravel() for gradient in found])
        expected = answer.gradients[kind].ravel()
        padding = found[expected.size :]
        assert not padding.any(), kind
        assert _relative(found[: expected.size], expected) < ROUNDED, kind


def test_the_gradient_is_the_slope_of_the_loss():
    source = SeededModel(MODEL, seed=1)
    x_BT, y_BT = source.tokens(2, 5)
    referee = Float64Model(source, 2, 5, [])
    referee.forward(x_BT, y_BT)
    referee.backward()
    step, rng = 1e-6, np.random.default_rng(0)
    for name, gradient in referee.gradients.items():
        weight, direction = referee.weights[name], rng.standard_normal(gradient.shape)
        losses = []
        for sign in (1, -1):
            referee.weights[name] = weight + sign * step * direction
            losses.append(referee.forward(x_BT, y_BT))
        referee.weights[name] = weight
        slope = (losses[0] - losses[1]) / (2 * step)
        assert slope == pytest.approx(float((gradient * direction).sum()), rel=1e-5, abs=1e-9), name


def test_the_first_update_is_a_step_against_the_sign_of_the_gradient_and_the_decay_of_all(
    monkeypatch,
):
    monkeypatch.setattr(float64, "PIECE", 5)  # several of each tensor
    source = SeededModel(MODEL, seed=2)
    x_BT, y_BT = source.tokens(2, 5)
    referee = Float64Model(source, 2, 5, [])
    referee.forward(x_BT, y_BT)
    referee.backward()
    before = {name: weight.copy() for name, weight in referee.weights.items()}
    referee.adamw(OptimizerSettings("adamw", 0.9, 0.999, 1e-8, 0.01, decay="all"), 1e-4)
    for name, gradient in referee.gradients.items():
        # After one step m / (1 - beta1) is the gradient, and v / (1 - beta2) its square.
        sign = gradient / (np.abs(gradient) + 1e-8)
        expected = before[name] - 1e-4 * (sign + 0.01 * before[name])
        np.testing.assert_allclose(referee.weights[name], expected, rtol=0, atol=1e-12)


def test_a_referee_that_does_not_fit_the_memory_says_so_before_it_takes_any(monkeypatch):
    monkeypatch.setattr(memory_need, "available_bytes", lambda: 1000)
    with pytest.raises(ResourceError, match="steps=0") as refused:
        Float64Model(SeededModel(MODEL, seed=0), 2, 5, ["steps=0"])
    assert refused.value.slug == "memory-too-small"


def _stored(case):
    """A golden's weights as a ModelFile, as far as the referee reads one."""
    shape = case.shape
    model = GPT2(shape.layers, shape.heads, shape.channels, shape.positions, shape.vocab_size)

    def read_into(name, out):
        kind, _, layer = name.partition(".")
        value = case.weights[kind][int(layer)] if layer else case.weights[kind]
        out[...] = 0
        out[: len(value)] = value

    return model, SimpleNamespace(model=model, read_into=read_into)


def _relative(found, expected):
    return np.linalg.norm(np.asarray(found, np.float64) - expected) / np.linalg.norm(expected)
