"""Sweeps and keys: read as Hydra would, and refused with the nearest key."""

import pytest

from harness.config import command_line
from harness.config.overrides import known_keys
from harness.errors import ConfigError


def test_a_sweep_is_every_combination_the_last_varying_first():
    runs = command_line.check(["-m", "seed=1,2", "batch_size=range(1,4)", "steps=7"])
    assert [(run.seed, run.batch_size) for run in runs] == [
        (1, 1),
        (1, 2),
        (1, 3),
        (2, 1),
        (2, 2),
        (2, 3),
    ]
    assert {run.steps for run in runs} == {7}


def test_the_later_of_two_sweeps_over_a_key_counts():
    runs = command_line.check(["-m", "seed=1,2", "steps=1", "seed=3,4,5"])
    assert [run.seed for run in runs] == [3, 4, 5]


@pytest.mark.parametrize(
    ("typed", "nearest"),
    [
        ("lr", "optimizer.lr"),
        ("heads", "model.heads"),
        ("optimiser.lr", "optimizer.lr"),
        ("batchsize", "batch_size"),
        ("ops.atention", "ops.attention"),
    ],
)
def test_a_misspelt_key_is_told_the_nearest(typed, nearest):
    with pytest.raises(ConfigError) as caught:
        command_line.compose([f"{typed}=1"])
    assert nearest in caught.value.facts["nearest"]


def test_the_halves_of_every_op_are_keys():
    keys = known_keys()
    assert {"ops.every_op", "ops.layernorm", "ops.layernorm_backward", "ops.adamw"} < keys
    assert "precision_of.layernorm" in keys and "precision_of.layernorm_backward" not in keys
