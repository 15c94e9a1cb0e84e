import pytest

from harness.bench.timing import Timing, interleave, measure, once, quantile, ratio, rounds_within


class Clock:
    """A clock that only moves when told."""

    def __init__(self):
        self.now = 0.0

    def __call__(self):
        return self.now

    def taking(self, *seconds):
        """A call that lasts the given seconds, one after another."""
        left = iter(seconds)
        return lambda: setattr(self, "now", self.now + next(left))


def test_calls_take_turns_and_each_is_set_up_before_it():
    order = []
    calls = {name: lambda name=name: order.append(name) for name in "AB"}
    setups = {"A": lambda: order.append("setup A")}
    interleave(calls, rounds=2, setups=setups, warmups=1)
    assert order == ["setup A", "A", "B"] * 3


def test_warm_ups_and_setups_are_not_counted():
    clock = Clock()
    timing = measure(
        clock.taking(100, 1, 2, 3),
        rounds=3,
        setup=clock.taking(7, 7, 7, 7),
        warmups=1,
        clock=clock,
    )
    assert timing.seconds == (1, 2, 3)


def test_one_call_is_timed_without_its_setup():
    clock = Clock()
    assert once(clock.taking(2), clock.taking(50), clock) == 2


def test_the_median_and_its_spread_are_those_of_the_rounds():
    timing = Timing(tuple(float(i) for i in range(11)))
    assert (timing.median_s, timing.p10_s, timing.p90_s, timing.rounds) == (5, 1, 9, 11)


def test_a_quantile_between_two_rounds_is_interpolated():
    assert quantile((4.0, 2.0), 0.25) == 2.5
    assert quantile((3.0,), 0.9) == 3.0


def test_a_ratio_is_of_medians_and_its_spread_of_neighbours():
    # A drift that slows both alike (rounds of 1, 2 and 4) leaves neighbours' ratios untouched.
    base = Timing((1.0, 2.0, 4.0))
    found = ratio(Timing((3.0, 6.0, 12.0)), base)
    assert (found.value, found.low, found.high) == (3, 3, 3)
    assert str(ratio(Timing((2.0, 6.0, 4.0)), base)) == "2 (1.2 to 2.8)"


@pytest.mark.parametrize(
    ("budget_s", "round_s", "expected"), [(1, 0.1, 10), (1, 10, 3), (1, 1e-6, 200), (1, 0, 200)]
)
def test_rounds_fill_the_budget_within_three_and_two_hundred(budget_s, round_s, expected):
    assert rounds_within(budget_s, round_s) == expected
