"""Hold each backend's half-ops to the laws. Shipped: `pytest --pyargs harness.conformance`.

A half-op that a backend does not have is skipped as unsupported, one that it declares wrong is xfailed,
and one whose device is not here is skipped as not run: none of them is passed.
"""

from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from harness.conformance.cases.listing import drawn_case, real_case
from harness.conformance.check import every_op
from harness.conformance.judge import EFFORTS, Verdict, excuse, judge
from harness.conformance.pytest_plugin import VERDICT, backend_names
from harness.conformance.report import row_of
from harness.contract import OpTable
from harness.contract.precision import POLICIES
from harness.errors import PluginError
from harness.plugins.loading import Backend, load

# Drawn on top of the fixed list; plain loops get fewer, because each takes a hundred times longer.
DRAWN = {"quick": 20, "full": 300}
DRAWN_IN_LOOPS = {"quick": 8, "full": 60}


@dataclass(frozen=True)
class Target:
    """A half-op of a backend at a precision. error: why the backend could not be loaded."""

    name: str
    hook: str = ""
    precision: str = "fp32"
    error: str = ""
    asked: bool = False

    def __str__(self) -> str:
        return "-".join(part for part in (self.name, self.hook, self.precision) if part)


@cache
def _ops() -> OpTable:
    return every_op()


@cache
def _backend(name: str) -> Backend:
    return load(name, _ops())


def targets(config: pytest.Config) -> Iterator[Target]:
    """Every half-op of the contract, for each backend; of a file, only those that it has."""
    asked = bool(config.getoption("--harness-backend"))
    for name in backend_names(config):
        try:
            backend = _backend(name)
        except PluginError as error:
            yield Target(name, error=str(error), asked=asked)
            continue
        for hook in _ops().hooks:
            if hook not in backend and name.endswith(".py"):
                continue
            for precision in POLICIES:
                if precision in backend.computes:
                    yield Target(name, hook, precision)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "target" in metafunc.fixturenames:
        metafunc.parametrize("target", list(targets(metafunc.config)), ids=str)


@pytest.fixture
def backend(target: Target) -> Backend:
    if target.error and target.asked:
        pytest.fail(target.error, pytrace=False)
    if target.error:
        pytest.skip(f"not run: {target.error}")
    return _backend(target.name)


def conclude(request: pytest.FixtureRequest, verdict: Verdict) -> None:
    """Keep a verdict for the report, and end the test as it says."""
    request.node.user_properties.append((VERDICT, vars(row_of(verdict))))
    if verdict.status == "failed":
        pytest.fail(str(verdict), pytrace=False)
    if verdict.status == "xfail":
        pytest.xfail(verdict.reason)
    if verdict.status in ("unsupported", "not run"):
        pytest.skip(f"{verdict.status}: {verdict.reason}")


def test_half_op_obeys_every_law(
    target: Target, backend: Backend, request: pytest.FixtureRequest
) -> None:
    seeds = EFFORTS[request.config.getoption("--harness-effort")]["seeds"]
    verdict = judge(backend, target.hook, _ops(), precision=target.precision, seeds=seeds)
    conclude(request, verdict)


def test_half_op_obeys_every_law_on_drawn_cases(
    target: Target, backend: Backend, request: pytest.FixtureRequest
) -> None:
    """Shape, data, seed, None, settings and alias drawn together; the least that fails is shown."""
    supported = target.hook in backend and backend.computes_in(
        _ops().op_of(target.hook).name, target.precision
    )
    if backend.device != "host" or not supported:
        pytest.skip("drawn cases are for half-ops on the host; the fixed list is for all")
    effort = request.config.getoption("--harness-effort")
    examples = (DRAWN_IN_LOOPS if backend.arrays == "memoryview" else DRAWN)[effort]
    op = _ops().op_of(target.hook)
    verdicts: list[Verdict] = []
    failed: list[Verdict] = []

    @settings(
        max_examples=examples,
        derandomize=True,  # the same cases on every machine and every day
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(st.data())
    def holds(data: Any) -> None:
        def choose(among: Sequence[Any]) -> Any:
            return data.draw(st.sampled_from(among))

        case = drawn_case(op, target.hook, target.precision, choose)
        if excuse(backend, op, case):
            return
        verdict = judge(backend, target.hook, _ops(), precision=target.precision, cases=[case])
        (failed if verdict.status == "failed" else verdicts).append(verdict)
        assert verdict.status != "failed"

    with suppress(AssertionError):
        holds()
    if failed:
        conclude(request, failed[-1])  # hypothesis ends on the least case that it found
    for verdict in verdicts:
        request.node.user_properties.append((VERDICT, vars(row_of(verdict))))


def test_half_op_is_right_at_a_real_gpt2_shape(
    target: Target, backend: Backend, request: pytest.FixtureRequest
) -> None:
    op = _ops().op_of(target.hook)
    case = real_case(op, target.hook, target.precision)
    if case is None:
        pytest.skip("its real shapes take long in float64; the model's own tests run them")
    reason = excuse(backend, op, case)
    if reason:
        verdict = Verdict(backend.name, target.hook, target.precision, status="not run")
        verdict.reason, verdict.excused = f"excused: {reason}", [(case.id, reason)]
        conclude(request, verdict)
    conclude(request, judge(backend, target.hook, _ops(), precision=target.precision, cases=[case]))
