"""Contestants one at a time: each is built, warmed up, timed and ended before the next one is built.

This is for a device whose memory does not hold all of them at once. The order is A B C, and A once more
at the end shows whether the device itself changed.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from harness.bench.contest.contest import Contest
from harness.bench.contest.contestant import Child
from harness.bench.contest.entrants import why_no_torch
from harness.bench.contest.work import COMPARED_LOSSES
from harness.bench.timing import Timing
from harness.bench.waterfall import Waterfall, waterfall_of
from harness.machine.device_peaks import AnyPeaks


@dataclass(frozen=True)
class Alone:
    """What one contestant showed.

    unavailable: why it could not take part; nothing else is then said. timing: of its steps after the
    warm ones. The rest is as of a Contestant.
    """

    name: str
    unavailable: str = ""
    what: str = ""
    first_step_s: float = 0.0
    timing: Timing | None = None
    losses: Sequence[float] = ()
    host_bytes: int | None = None
    device_bytes: int | None = None


def take_turn(contest: Contest, name: str, warmups: int, steps: int) -> Alone:
    """Build one contestant, let it take its steps, and end it. The contest's entrants must be `alone`.

    Raises what building or training raises.
    """
    assert contest.entrants.alone, "the others are there"
    reason = contest.unavailable.get(name, "")
    if name in contest.entrants.peers:
        reason = reason or why_no_torch(contest.work.settings)
    if reason:
        return Alone(name, reason)
    one = contest.contestant(name)
    try:
        reason = one.build()
        if reason:
            return Alone(name, reason)
        one.run(warmups)
        timing = Timing(tuple(one.run(steps)))
        return Alone(
            name=name,
            what=one.what,
            first_step_s=one.first_step_s,
            timing=timing,
            losses=one.losses[:COMPARED_LOSSES],
            host_bytes=one.peak(),
            device_bytes=one.device_bytes,
        )
    finally:
        one.end()


def waterfall(contest: Contest, name: str, peaks: AnyPeaks, steps: int) -> Waterfall:
    """A step of one of ours with every half-op timed, in a process of its own."""
    one = contest.contestant(name)
    assert isinstance(one, Child), "only ours can be asked"
    try:
        one.build()
        return waterfall_of(name, one.waterfall(steps), peaks)
    finally:
        one.end()
