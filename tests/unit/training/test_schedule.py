"""The learning rate: warm-up from 0 to the peak, then a decay to a fraction of it."""

import math

import pytest

from harness.errors import ConfigError
from harness.training.schedule import DECAYS, Schedule


@pytest.mark.parametrize("decay", DECAYS)
def test_warm_up_rises_in_equal_parts_to_the_peak(decay):
    schedule = Schedule(peak=0.8, steps=100, warmup_steps=4, decay=decay)
    assert [schedule(step) for step in (1, 2, 3, 4)] == pytest.approx([0.2, 0.4, 0.6, 0.8])


@pytest.mark.parametrize("decay", ["linear", "cosine"])
def test_the_last_step_has_the_final_fraction(decay):
    assert Schedule(2.0, 50, 10, decay, final_fraction=0.25)(50) == pytest.approx(0.5)


def test_linear_is_a_straight_line():
    schedule = Schedule(1.0, 10, 0, "linear", final_fraction=0.0)
    assert [schedule(step) for step in range(1, 11)] == pytest.approx(
        [0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2, 0.1, 0]
    )


def test_cosine_is_half_a_period():
    schedule = Schedule(1.0, 8, 0, "cosine", final_fraction=0.0)
    expected = [math.cos(math.pi * step / 16) ** 2 for step in range(1, 9)]
    assert [schedule(step) for step in range(1, 9)] == pytest.approx(expected, abs=1e-15)


def test_constant_stays():
    schedule = Schedule(0.3, 10, 2, "constant")
    assert {schedule(step) for step in range(2, 11)} == {0.3}


@pytest.mark.parametrize("decay", DECAYS)
def test_a_warm_up_longer_than_the_run_never_divides_by_zero(decay):
    schedule = Schedule(1.0, 5, 10, decay)
    assert [schedule(step) for step in range(1, 6)] == pytest.approx([0.1, 0.2, 0.3, 0.4, 0.5])
    assert math.isfinite(Schedule(1.0, 10, 10, decay)(11))


def test_an_unknown_decay_is_refused_with_the_nearest():
    with pytest.raises(ConfigError, match="cosine"):
        Schedule(1.0, 10, decay="cosin")
