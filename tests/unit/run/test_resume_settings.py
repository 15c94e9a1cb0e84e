"""Which settings a run may change when it goes on: those that leave its numbers as they are."""

from dataclasses import replace

import pytest

from harness.config.command_line import compose
from harness.config.config import model_of
from harness.run.resume import fingerprint


def of(run):
    return fingerprint(run, model_of(run, 256), "0" * 64)


@pytest.mark.parametrize(
    "change",
    [
        {"recompute": "block"},
        {"scratch_mib": 1},
        {"threads": 2},
        {"blas_kernel": "library"},
        {"backend": "python"},
    ],
    ids=lambda change: next(iter(change)),
)
def test_a_run_goes_on_with_another(change):
    assert of(replace(compose([]), **change)) == of(compose([]))


@pytest.mark.parametrize(
    "change",
    [{"seed": 1}, {"batch_size": 5}, {"sequence_length": 3}],
    ids=lambda change: next(iter(change)),
)
def test_a_run_does_not_go_on_with_another(change):
    assert of(replace(compose([]), **change)) != of(compose([]))
