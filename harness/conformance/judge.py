"""Judge one half-op of one backend: passed, failed, xfail, unsupported or not run, and why."""

import math
import shlex
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from harness.conformance.cases.case import Case
from harness.conformance.cases.cover import covering, takes_long
from harness.conformance.cases.listing import cases_of, drawn_case, is_wide, real_case
from harness.conformance.delegation import borrowed, foreign, functions_of_others, loaded_modules
from harness.conformance.explain import explain
from harness.conformance.laws import Failure, Judged, Outcome, try_case
from harness.conformance.trial import Trial, prepare
from harness.conformance.xfail import KnownWrong
from harness.contract import OpTable
from harness.contract.signature import source_line
from harness.errors import ConfigError, HarnessError
from harness.plugins import Backend, installed, load

EFFORTS: dict[str, dict[str, Any]] = {
    "quick": {"seeds": (0,), "drawn": 0, "real": False, "short": True},
    "full": {"seeds": tuple(range(8)), "drawn": 200, "real": True, "short": False},
}
STATUSES = ("passed", "failed", "xfail", "unsupported", "not run")

# A case takes milliseconds, a real shape in plain NumPy a second: beyond this a kernel hangs.
LIMIT_S = 20.0
EXPLAINED = 3
"""Failures of a verdict that are explained at length; the others are one line each."""


@dataclass
class Verdict:
    """What judging one half-op showed.

    status: one of STATUSES; reason: why it is not simply passed or failed.
    cases: how many were run. excused: (case id, reason) of those that were not.
    expected_failures: (case id, reason) of those that the backend declares to be wrong.
    worst: (largest err/tolerance, its case id) of the cases that passed; below 1.
    squares: of errors and of values, summed over the cases of normal data, by output.
    """

    backend: str
    hook: str
    precision: str
    arithmetic: str | None = None
    status: str = "passed"
    reason: str = ""
    cases: int = 0
    failed_cases: int = 0
    failures: list[Failure] = field(default_factory=list)
    excused: list[tuple[str, str]] = field(default_factory=list)
    expected_failures: list[tuple[str, str]] = field(default_factory=list)
    worst: tuple[float, str] = (0.0, "")
    squares: dict[str, tuple[float, float]] = field(default_factory=dict)

    @property
    def digits(self) -> float:
        """Decimal digits that agree with float64: the relative L2 error of the worst output."""
        return min(
            (-0.5 * math.log10(e / v) for e, v in self.squares.values() if e > 0 and v > 0),
            default=math.inf,
        )

    @property
    def passed(self) -> bool:
        return self.status == "passed"

    def __str__(self) -> str:
        head = f"{self.hook} of {self.backend} at {self.precision}: {self.status}"
        head += f" ({self.reason})" if self.reason else ""
        head += f", {self.failed_cases} of {self.cases} cases" if self.failures else ""
        return "\n".join([head, *(str(failure) for failure in self.failures[:EXPLAINED])])


def judge(
    backend: Backend,
    hook: str,
    ops: OpTable,
    *,
    precision: str = "fp32",
    effort: str = "quick",
    seeds: Sequence[int] | None = None,
    cases: Iterable[Case] | None = None,
    stop_after: int | None = None,
    waive: Iterable[str] = (),
    limit_s: float = LIMIT_S,
) -> Verdict:
    """Run a backend's half-op through its cases. Never raises for what the kernel does.

    effort: `quick` is the fixed list of one seed; `full` is eight seeds, 200 drawn cases and a real
        GPT-2 shape. seeds: instead of the effort's own. cases: instead of the effort's whole list.
    stop_after: enough failing cases to stop at; all cases are run without it.
    waive: laws (of harness/conformance/laws.py) that are not asked: "memory", "repeat".
    limit_s: when a call that has not come back is given up.
    """
    op = ops.op_of(hook)
    arithmetic = backend.computes_in(op.name, precision)
    verdict = Verdict(backend.name, hook, precision, arithmetic)
    if _cannot_run(verdict, backend):
        return verdict
    assert arithmetic is not None
    stolen = borrowed(backend, hook)
    if stolen:
        case = Case(hook, (), precision=precision)
        what = f"the function belongs to backend '{stolen}': {source_line(backend.functions[hook])}"
        verdict.failures.append(Failure(case, "own work", what))
        verdict.status = "failed"
        return verdict
    known = KnownWrong.of(backend, hook, ops, precision)
    whole = cases is None
    if cases is None:
        listed = _cases(backend, hook, ops, precision, effort, seeds, verdict) + known.cases
    else:
        listed = list(cases)
    waived = frozenset(waive)
    if hook in getattr(backend.module, "nondeterministic", {}):
        waived |= {"repeat"}
    if backend.name == "reference":
        waived |= {"memory"}  # the formulas are read, not run in a step
    judged = Judged(backend, hook, functions_of_others(backend, ops), limit_s, waived)
    failed: list[tuple[Trial, list[Failure]]] = []
    imported = loaded_modules()
    for case in dict.fromkeys(listed):
        trial = prepare(op, case, arithmetic)
        outcome = try_case(judged, trial)
        verdict.cases += 1
        if verdict.cases == 1:
            outcome.failures += _late_imports(case, backend, imported)
        if _count(verdict, case, outcome, known):
            failed.append((trial, outcome.failures))
            if stop_after is not None and len(failed) >= stop_after:
                break
    else:
        verdict.failures += known.not_wrong_after_all() if whole else []
    verdict.failed_cases = len(failed)
    verdict.failures = _explained(backend, hook, failed) + verdict.failures
    if verdict.failures:
        verdict.status = "failed"
    elif verdict.expected_failures:
        verdict.status, verdict.reason = "xfail", verdict.expected_failures[0][1]
    return verdict


def judge_function(
    function: Callable[..., Any],
    hook: str,
    ops: OpTable,
    *,
    precision: str = "fp32",
    computes: str | Mapping[str, Any] = "f32",
    arrays: str = "numpy",
    belongs_to: str | None = None,
    **options: Any,
) -> Verdict:
    """Judge a plain host function as the only half-op of a backend.

    computes: the arithmetic that it declares. belongs_to: the backend whose functions it may call,
        as a mutant of one does. options: those of `judge`.
    """
    declared = {precision: computes} if isinstance(computes, str) else computes
    module = load(belongs_to, ops).module if belongs_to else None
    name = getattr(function, "__name__", "function")
    source = source_line(function)
    backend = Backend(name, "host", arrays, declared, {hook: function}, source, module)
    return judge(backend, hook, ops, precision=precision, **options)


def _cannot_run(verdict: Verdict, backend: Backend) -> bool:
    """Whether there is nothing to judge, with the status and the reason in the verdict."""
    if verdict.hook not in backend:
        verdict.status, verdict.reason = "unsupported", "the backend does not have it"
    elif verdict.arithmetic is None:
        verdict.status = "unsupported"
        verdict.reason = f"no arithmetic is declared for {verdict.precision}"
    else:
        try:
            backend.open_device().empty(256)
        except ConfigError:  # a device that was asked for wrongly, and not one that is missing
            raise
        except Exception as error:
            why = error.line if isinstance(error, HarnessError) else error
            verdict.status = "not run"
            verdict.reason = f"the device {backend.device} cannot be opened: {why}"
    return verdict.status != "passed"


def _cases(
    backend: Backend,
    hook: str,
    ops: OpTable,
    precision: str,
    effort: str,
    seeds: Sequence[int] | None,
    verdict: Verdict,
) -> list[Case]:
    """The cases of an effort, without those that a backend is excused."""
    if effort not in EFFORTS:
        raise ConfigError(
            f"no effort is called '{effort}'", slug="unknown-effort", there_are=", ".join(EFFORTS)
        )
    op, chosen = ops.op_of(hook), EFFORTS[effort]
    found = cases_of(op, hook, precision, seeds=chosen["seeds"] if seeds is None else seeds)
    if chosen["drawn"] and seeds is None:
        rng = np.random.default_rng(0)

        def choose(among: Sequence[Any]) -> Any:
            return among[int(rng.integers(len(among)))]

        found += [drawn_case(op, hook, precision, choose) for _ in range(chosen["drawn"])]
    real = real_case(op, hook, precision) if chosen["real"] else None
    found += [real] if real else []
    reasons = {case: excuse(backend, op, case) for case in found}
    if backend.slowness and chosen["short"]:
        short = set(covering(op, found, precision == next(iter(backend.computes))))
        reasons |= dict.fromkeys((case for case in found if case not in short), backend.slowness)
    verdict.excused += [(case.id, reason) for case, reason in reasons.items() if reason]
    return [case for case, reason in reasons.items() if not reason]


def excuse(backend: Backend, op: Any, case: Case) -> str:
    """Why a backend need not run a case; empty if it must."""
    if backend.arrays == "memoryview" and is_wide(op, case):
        return "plain loops: minutes at this size"
    return backend.slowness if takes_long(op, case) else ""


def _late_imports(case: Case, backend: Backend, before: frozenset[str]) -> list[Failure]:
    """A failure if the first call imported another backend, whose functions nobody had replaced."""
    late = foreign(loaded_modules() - before, backend)
    what = f"it imports {late[0]} when called; a backend's result must be its own" if late else ""
    return [Failure(case, "own work", what)] if late else []


def _explained(
    backend: Backend, hook: str, failed: list[tuple[Trial, list[Failure]]]
) -> list[Failure]:
    """All failures, those that say most first; some explained, each with how to see it again."""

    def says(entry: tuple[Trial, list[Failure]]) -> tuple[bool, bool, int]:
        # A shape of ones hides where it is wrong, and odd data hide what it looks like.
        trial, _ = entry
        sizes = [size for _, size in trial.case.dims]
        return min(sizes, default=1) > 2, trial.case.style == "normal", -trial.data.references_size

    found: list[Failure] = []
    for trial, failures in sorted(failed, key=says, reverse=True):
        for failure in failures:
            if len(found) < EXPLAINED:
                failure = replace(failure, details=(*failure.details, *explain(trial, failure)))
            found.append(replace(failure, command=_again(backend, hook, trial.case), actual=None))
    return found


def _again(backend: Backend, hook: str, case: Case) -> str:
    """The command that runs one case again; none for a function that only this process knows."""
    named = backend.name in installed() or backend.name == "reference"
    if not named and not backend.name.endswith(".py"):
        return ""
    name = backend.name if named else _relative(Path(backend.name))
    return f"harness check {shlex.quote(name)}::{hook} --case '{case.id}'"


def _relative(path: Path) -> str:
    """A path as one would type it here."""
    here = Path.cwd()
    return f"./{path.relative_to(here)}" if path.is_relative_to(here) else str(path)


def _count(verdict: Verdict, case: Case, outcome: Outcome, known: KnownWrong) -> bool:
    """Add one case's outcome to the verdict; whether it is a failure."""
    reason = known.reason(case)
    if reason is not None:
        known.saw(case, bool(outcome.failures))
        if outcome.failures:
            verdict.expected_failures.append((case.id, reason))
        return False
    if not outcome.failures:
        ratio = max(outcome.ratios.values(), default=0.0)
        if ratio > verdict.worst[0]:
            verdict.worst = (ratio, case.id)
        for name, (error, value) in outcome.squares.items():
            errors, values = verdict.squares.get(name, (0.0, 0.0))
            verdict.squares[name] = errors + error, values + value
    return bool(outcome.failures)
