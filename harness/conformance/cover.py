"""Choose few cases that together meet all that every case meets, for kernels that run in a simulator.

What a case meets: each size of each letter (1, and either side of every tile), its style of data, what
it leaves out, its setting, its alias, and `accumulate`. Wide cases are for other faults, and left out.
"""

import math
from collections.abc import Hashable, Sequence

from harness.conformance.cases import Case, is_wide, work_of
from harness.contract import Op

CALL = 3_000
"""What a call costs however little it computes, in the units of `work_of`."""


ENOUGH = (30, 100)
"""Numbers that a style of data, or a setting, needs to show itself: most do with the first."""


def covering(op: Op, cases: Sequence[Case]) -> list[Case]:
    """A short list of these cases, in their order, that meets what they meet; the cheapest first.

    Greedy: the case that meets most for its work, until nothing is left to be met.
    """
    cost = {case: CALL + work_of(op.half(case.hook), dict(case.dims)) for case in cases}
    left = {case: met(op, case) for case in cases if not is_wide(op, case)}
    unmet = set().union(*left.values())
    chosen = set()
    while unmet:
        best = max(left, key=lambda case: len(left[case] & unmet) / cost[case])
        chosen.add(best)
        unmet -= left.pop(best)
    return [case for case in cases if case in chosen]


def met(op: Op, case: Case) -> set[Hashable]:
    """What a case meets."""
    dims = dict(case.dims)
    many = sum(math.prod(dims.values()) >= enough for enough in ENOUGH)
    found: set[Hashable] = {("style", case.style, many), ("accumulate", case.accumulate)}
    found |= {("size", letter, size) for letter, size in case.dims}
    found |= {("setting", name, value) for name, value in case.settings}
    example = op.example_settings(dims)
    found |= {("example", name, value, many) for name, value in example.items()}
    if not dims:
        found.add(("numbers", case.seed))  # nothing but its numbers tells one case from another
    found |= {("without", case.without), ("alias", case.alias)}
    return found
