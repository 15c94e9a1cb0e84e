"""The optimizers against their published formulas, in float64."""

import numpy as np
import pytest

from harness.errors import ConfigError
from harness.training.optimizer import OptimizerSettings

RATES = [0.01, 0.02, 0.005]


def run(make_trainer, batch, **optimizer):
    """Three steps; the weights before, the gradients of each step, the weights after."""
    trainer = make_trainer(6, optimizer=optimizer)
    before = trainer.state()["model"]
    gradients = []
    for rate in RATES:
        trainer.step(*batch, rate)
        gradients.append(trainer.parameters.to_host("gradient"))
    return before, gradients, trainer.state()["model"]


def assert_follows(make_trainer, batch, formula, decayed, **optimizer):
    """formula(w, g, t, rate, decay, memory) -> the next w, in float64."""
    before, gradients, after = run(make_trainer, batch, **optimizer)
    for name, start in before.items():
        w, memory = start.astype(np.float64), {}
        decay = optimizer.get("weight_decay", 0.0) if decayed(name, start) else 0.0
        for t, (rate, step) in enumerate(zip(RATES, gradients, strict=True), start=1):
            w = formula(w, step[name].astype(np.float64), t, rate, decay, memory)
        assert after[name] == pytest.approx(w, abs=1e-6), name


def matrices(name, array):
    return array.ndim == 2


@pytest.mark.parametrize(
    ("decay", "decayed"),
    [
        ("matrices", matrices),
        ("all", lambda name, array: True),
        ("none", lambda name, array: False),
    ],
)
def test_adamw_is_loshchilov_and_hutters(make_trainer, six_sequences, decay, decayed):
    def formula(w, g, t, rate, weight_decay, memory):
        m = memory["m"] = 0.9 * memory.get("m", 0) + 0.1 * g
        v = memory["v"] = 0.95 * memory.get("v", 0) + 0.05 * g * g
        unbiased = (m / (1 - 0.9**t)) / (np.sqrt(v / (1 - 0.95**t)) + 1e-6)
        return w - rate * (unbiased + weight_decay * w)

    settings = {"weight_decay": 0.3, "beta2": 0.95, "eps": 1e-6, "decay": decay}
    assert_follows(make_trainer, six_sequences, formula, decayed, name="adamw", **settings)


def test_sgd_with_momentum_is_polyaks(make_trainer, six_sequences):
    def formula(w, g, t, rate, weight_decay, memory):
        velocity = memory["v"] = 0.8 * memory.get("v", 0) + g + weight_decay * w
        return w - rate * velocity

    settings = {"momentum": 0.8, "weight_decay": 0.1}
    assert_follows(make_trainer, six_sequences, formula, matrices, name="sgd", **settings)


def test_plain_sgd_keeps_no_moments(make_trainer, six_sequences):
    def formula(w, g, t, rate, weight_decay, memory):
        return w - rate * g

    assert_follows(
        make_trainer, six_sequences, formula, matrices, name="sgd", momentum=0.0, weight_decay=0.0
    )
    assert OptimizerSettings("sgd").moments == ()


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"name": "adamax"}, "adamw, adam, sgd"),
        ({"decay": "biases"}, "matrices, all, none"),
        ({"name": "adam", "weight_decay": 0.1}, "optimizer=adamw"),
    ],
)
def test_what_no_optimizer_does_is_refused(settings, words):
    with pytest.raises(ConfigError, match=words):
        OptimizerSettings(**settings)
