"""Time calls: warm up, repeat, take turns. Report a median with its spread, never a single run."""

import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

Clock = Callable[[], float]
Call = Callable[[], object]

MIN_ROUNDS = 3
MAX_ROUNDS = 200


@dataclass(frozen=True)
class Timing:
    """The seconds of each round of one callable, in the order they were run."""

    seconds: tuple[float, ...]

    @property
    def median_s(self) -> float:
        return statistics.median(self.seconds)

    @property
    def p10_s(self) -> float:
        return quantile(self.seconds, 0.1)

    @property
    def p90_s(self) -> float:
        return quantile(self.seconds, 0.9)

    @property
    def rounds(self) -> int:
        return len(self.seconds)


@dataclass(frozen=True)
class Ratio:
    """How many times as long one callable takes as another.

    value: the ratio of the medians. low, high: p10 and p90 of the ratios of neighbouring rounds.
    """

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:.3g} ({self.low:.3g} to {self.high:.3g})"


def quantile(values: tuple[float, ...], fraction: float) -> float:
    """The value below which a fraction lies, interpolated between neighbours."""
    ordered = sorted(values)
    place = fraction * (len(ordered) - 1)
    below = int(place)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (place - below) * (ordered[above] - ordered[below])


def once(call: Call, setup: Call | None = None, clock: Clock = time.perf_counter) -> float:
    """The seconds of one call; its setup is not counted.

    A call that has a clock of its own, a device's, is timed by that: its attribute `device_seconds`.
    """
    if setup is not None:
        setup()
    own_clock = getattr(call, "device_seconds", None)
    if own_clock is not None:
        return float(own_clock())
    start = clock()
    call()
    return clock() - start


def interleave(
    calls: Mapping[str, Call],
    *,
    rounds: int,
    setups: Mapping[str, Call] | None = None,
    warmups: int = 1,
    clock: Clock = time.perf_counter,
) -> dict[str, Timing]:
    """Run the calls in turn, A B A B ..., so that what slows the machine slows all of them.

    warmups: rounds in the same order that are not counted. setups: run before each call, not timed.
    """
    setups = setups or {}
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    for turn in range(warmups + rounds):
        for name, call in calls.items():
            elapsed = once(call, setups.get(name), clock)
            if turn >= warmups:
                seconds[name].append(elapsed)
    return {name: Timing(tuple(values)) for name, values in seconds.items()}


def measure(
    call: Call,
    *,
    rounds: int,
    setup: Call | None = None,
    warmups: int = 1,
    clock: Clock = time.perf_counter,
) -> Timing:
    """Time one callable on its own."""
    setups = {} if setup is None else {"call": setup}
    return interleave({"call": call}, rounds=rounds, setups=setups, warmups=warmups, clock=clock)[
        "call"
    ]


def rounds_within(budget_s: float, round_s: float) -> int:
    """How many rounds of round_s fit a budget: 3 at least, 200 at most."""
    return max(MIN_ROUNDS, min(MAX_ROUNDS, int(budget_s / max(round_s, 1e-9))))


def ratio(timing: Timing, base: Timing) -> Ratio:
    """How many times as long `timing` takes as `base`; both from one `interleave`."""
    neighbours = tuple(a / b for a, b in zip(timing.seconds, base.seconds, strict=True))
    return Ratio(
        timing.median_s / base.median_s, quantile(neighbours, 0.1), quantile(neighbours, 0.9)
    )
