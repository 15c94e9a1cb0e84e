"""The matrix: each half of each op, at a small shape and the real ones, on each installed backend."""

from dataclasses import asdict

import pytest

from harness.bench.cases import matrix
from harness.bench.ops import BUDGET_S
from harness.bench.timing import Timing, once, rounds_within
from harness.plugins.loading import all_ops, installed

CASES = matrix(all_ops(), (), ("small", "real"))


@pytest.mark.parametrize("backend_name", sorted(installed()))
@pytest.mark.parametrize(
    "case_maker", CASES, indirect=True, ids=[f"{half.name}-{shape}" for _, half, shape in CASES]
)
def test_a_right_result_is_timed(benchmark, checked_call, backend_name):
    case = checked_call.case
    benchmark.group = case.group
    benchmark.name = backend_name
    benchmark.pedantic(
        checked_call,
        setup=checked_call.setup,
        rounds=rounds_within(BUDGET_S, once(checked_call, checked_call.setup)),
    )
    row = checked_call.done(Timing(tuple(benchmark.stats.stats.data)))
    assert row.status == "timed", row.reason
    benchmark.extra_info.update(
        shape=dict(case.dims), kind=case.shape.kind, error_in_tolerances=row.error,
        **asdict(row.work), **asdict(row.score),
    )  # fmt: skip
