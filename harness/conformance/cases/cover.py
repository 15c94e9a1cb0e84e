"""Choose few cases that together meet what all of them meet, for kernels that run in a simulator.

What a case meets: each size of each letter (1, either side of a tile, one that is large), its style of
data, what it leaves out, its setting, its alias, and `accumulate`. Wide cases take long: only those of
flat arrays are among them. Large sizes are met at one precision; at the edge of a tile a call is not
made again (laws.py).
"""

import math
from collections.abc import Sequence
from typing import Any

from harness.conformance.cases.case import Case, work_of
from harness.conformance.cases.listing import is_wide
from harness.contract import Op

CALL = 3_000
"""What a call costs however little it computes, in the units of `work_of`."""

PLACE = 200
"""What one more of any size costs besides: it may be one more block of threads."""

EDGE = 30
"""Sizes below are no tile's edge."""

LARGE = 100
"""Sizes from here on count as one: the edges of tiles of 128 and of 256."""

FLAT = 1 << 16
"""Elements of an op that has one letter: beyond every tile, and beyond a grid."""

BYTE = 256

ENOUGH = (30, 100)
"""Numbers that a style of data, or a setting, needs to show itself: most do with the first."""


def covering(op: Op, cases: Sequence[Case], large: bool = True) -> list[Case]:
    """A short list of these cases, in their order, that meets what they meet.

    Greedy: the case that meets most for its cost, until nothing is left to be met. large: whether large
    sizes are to be met.
    """
    left = {case: met(op, case) for case in cases if not takes_long(op, case)}
    if not large:
        for seen in left.values():
            seen -= {one for one in seen if one[0] == "size" and one[2] == LARGE}
    cost = {case: _cost(op, case) for case in left}
    unmet: set[tuple[Any, ...]] = set().union(*left.values())
    chosen = set()
    while unmet:
        best = max(left, key=lambda case: len(left[case] & unmet) / cost[case])
        chosen.add(best)
        unmet -= left.pop(best)
    return [case for case in cases if case in chosen]


def met(op: Op, case: Case) -> set[tuple[Any, ...]]:
    """What a case meets."""
    dims = dict(case.dims)
    many = sum(math.prod(dims.values()) >= enough for enough in ENOUGH)
    found: set[tuple[Any, ...]] = {("style", case.style, many), ("accumulate", case.accumulate)}
    found |= {("size", letter, min(size, LARGE)) for letter, size in case.dims}
    found |= {("setting", name, value) for name, value in case.settings}
    example = op.example_settings(dims)
    found |= {("example", name, value, many) for name, value in example.items()}
    if not dims:
        found.add(("numbers", case.seed))  # nothing but its numbers tells one case from another
    if case.style == "end-ids" and dims.get("V", 0) > BYTE:
        found.add(("ids beyond a byte",))
    found |= {("without", case.without), ("alias", case.alias), ("wide", is_wide(op, case))}
    return found


def takes_long(op: Op, case: Case) -> bool:
    """Whether a case is minutes of a simulator."""
    flat = len(case.dims) == 1 and case.dims[0][1] <= FLAT
    return is_wide(op, case) and not flat


def is_small(case: Case) -> bool:
    """Whether no size of a case is at a tile's edge."""
    return max((size for _, size in case.dims), default=1) < EDGE


def _cost(op: Op, case: Case) -> int:
    dims = dict(case.dims)
    return CALL + work_of(op.half(case.hook), dims) + PLACE * sum(dims.values())
