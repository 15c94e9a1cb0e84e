"""Choose few cases that together meet all that every case meets, for kernels that run in a simulator.

What a case meets: each size of each letter (1, and either side of every tile), its style of data, what
it leaves out, its setting, its alias, and `accumulate`. Wide cases are for other faults, and left out.
"""

import math
from collections.abc import Sequence
from typing import Any

from harness.conformance.cases import Case, is_wide, work_of
from harness.contract import Op

CALL = 3_000
"""What a call costs however little it computes, in the units of `work_of`."""


PLACE = 200
"""What one more of any size costs, in the same units."""

SMALL = 30
BYTE = 256

ENOUGH = (30, 100)
"""Numbers that a style of data, or a setting, needs to show itself: most do with the first."""


LARGE = 100
"""Sizes from here on count as one: either side of the edge of any tile of 128, or of 256."""


def covering(op: Op, cases: Sequence[Case], large: bool = True) -> list[Case]:
    """A short list of these cases, in their order, that meets what they meet; the cheapest first.

    Greedy: the case that meets most for its work, until nothing is left to be met. large: whether large
    sizes have to be met, as they need not be at every precision.
    """
    cost = {case: _cost(op, case) for case in cases}
    left = {case: met(op, case) for case in cases if not is_wide(op, case)}
    if not large:
        for seen in left.values():
            seen -= {one for one in seen if one[0] == "size" and one[2] == LARGE}
    unmet: set[tuple[Any, ...]] = set().union(*left.values())
    chosen = set()
    while unmet:
        best = max(left, key=lambda case: len(left[case] & unmet) / cost[case])
        chosen.add(best)
        unmet -= left.pop(best)
    return [case for case in cases if case in chosen]


def _cost(op: Op, case: Case) -> int:
    """Of a call: its work, and the blocks of threads that a large size makes many."""
    dims = dict(case.dims)
    return CALL + work_of(op.half(case.hook), dims) + PLACE * sum(dims.values())


def is_small(case: Case) -> bool:
    """Whether no size of a case is at a tile's edge."""
    return max((size for _, size in case.dims), default=1) < SMALL


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
    found |= {("without", case.without), ("alias", case.alias)}
    return found
