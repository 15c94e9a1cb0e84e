"""How far off a tensor is, and where most."""

import json
import math

import numpy as np
import pytest

from harness.verify import difference
from harness.verify.difference import Difference, Row


def test_the_error_is_the_norm_of_the_difference_by_that_of_what_is_expected():
    found = Difference()
    found.add("a", np.array([3.0, 4.0], np.float32), np.array([3.0, 1.0], np.float32))
    found.add("b", np.array([[1.0]], np.float32), np.array([[5.0]], np.float32))
    assert found.relative == pytest.approx(5 / math.sqrt(9 + 1 + 25))
    assert found.largest == 4
    assert found.worst == "b[0, 0] is 1, and 5 in the state"


def test_pieces_are_one_tensor(monkeypatch):
    monkeypatch.setattr(difference, "PIECE", 5)
    rng = np.random.default_rng(0)
    ours, theirs = rng.standard_normal((2, 3, 7))
    ours[1, 6] += 100
    found = Difference()
    found.add("x", ours, theirs)
    assert found.relative == pytest.approx(np.linalg.norm(ours - theirs) / np.linalg.norm(theirs))
    assert found.worst.startswith("x[1, 6] is ")


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_what_is_not_finite_is_the_worst_and_fails(value):
    ours, theirs = np.zeros(8, np.float32), np.ones(8, np.float32)
    ours[5] = value
    ours[7] = 1e30
    found = Difference()
    found.add("x", ours, theirs)
    assert found.worst.startswith("x[5] is ")
    row = Row("x", found.relative, 1e-4, worst=found.worst)
    assert not row.ok
    json.dumps(row.record(), allow_nan=False)


def test_nothing_is_near_nothing_and_something_is_not():
    found = Difference()
    found.add("x", np.zeros(3), np.zeros(3))
    assert found.relative == 0
    found.add("x", np.full(3, 1e-30), np.zeros(3))
    assert found.relative == math.inf


def test_a_row_says_its_verdict_and_a_failure_its_place():
    good, bad = Row("dwte", 1e-6, 1e-4, worst="here"), Row("dwte", 1e-3, 1e-4, worst="here")
    assert good.ok and "ok" in str(good) and "here" not in str(good)
    assert not bad.ok and str(bad).endswith("FAIL  here")
    assert Row("dwte", 1e-4, 1e-4).ok
    assert not Row("dwte", math.nan, 1e-4).ok
