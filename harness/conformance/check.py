"""`harness check NAME_OR_FILE[::op]`: judge one backend, and print a table and what is wrong."""

import argparse
import sys
from collections.abc import Iterator

from harness.conformance.cases.case import parse_case
from harness.conformance.judge import EXPLAINED, Verdict, judge
from harness.conformance.report import Row, counts, row_of, write_report
from harness.contract import OpTable
from harness.contract.precision import POLICIES
from harness.contract.table import nearest
from harness.device import HOOKS
from harness.errors import ConfigError, NumericsError, OpNotImplemented
from harness.plugins import OPS, Backend, all_ops, installed, load


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of `harness check`."""
    parser.add_argument("target", metavar="NAME_OR_FILE[::op]")
    parser.add_argument("--case", help="only the case with this id, as a failure prints it")
    parser.add_argument("--precision", help="only this precision: fp32, tf32 or bf16")
    parser.add_argument("--effort", choices=["quick", "full"], default="quick")
    parser.add_argument("--report", metavar="DIR", help="write JSON, Markdown and a badge there")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """`harness check`. Returns the exit code."""
    return run_check(
        arguments.target,
        case=arguments.case,
        precision=arguments.precision,
        effort=arguments.effort,
        report=arguments.report,
    )


def run_check(
    argv_target: str,
    *,
    case: str | None = None,
    precision: str | None = None,
    effort: str = "quick",
    report: str | None = None,
) -> int:
    """Judge what a target names, print it, and return 0, or NumericsError's code if anything fails.

    argv_target: a backend's name or a file, and after `::` an op or one half of it.
    case: the id of a single case. precision: only this one. report: a folder for report.py's files.
    """
    name, _, part = argv_target.partition("::")
    ops = every_op()
    backend = load(name, ops)
    hooks = _hooks(backend, part, ops)
    only = parse_case(case, ops) if case else None
    if only is not None:
        hooks, precision = (only.hook,), only.precision
        if only.hook not in backend:
            raise _lacks(backend, only.hook)
    verdicts = []
    print(f"{backend.name}  {backend.source}")
    for hook in hooks:
        for chosen in _precisions(backend, precision):
            cases = None if only is None else [only]
            verdict = judge(backend, hook, ops, precision=chosen, effort=effort, cases=cases)
            verdicts.append(verdict)
            _print_row(verdict)
    rows = [row_of(verdict) for verdict in verdicts]
    _print_end(rows, verdicts)
    if report:
        print(f"\nreport  {write_report(report, rows)}")
    return NumericsError.exit_code if any(row.status == "failed" for row in rows) else 0


def every_op() -> OpTable:
    """The core's ops, and those that plugins declare, loaded: a table to go through."""
    ops = all_ops()
    for name in installed(OPS):
        _ = ops[name]
    return ops


def _hooks(backend: Backend, part: str, ops: OpTable) -> tuple[str, ...]:
    """The half-ops that a target names and the backend has."""
    if not part:
        return tuple(hook for hook in ops.hooks if hook in backend)
    if part in ops:
        named = ops[part].hooks
    elif part in ops.hooks:
        named = (part,)
    else:
        names = (*ops, *ops.hooks)
        raise ConfigError(
            f"'{part}' is neither an op nor a half of one",
            slug="unknown-op",
            nearest=nearest(part, names),
            ops=", ".join(sorted(ops)),
        )
    found = tuple(hook for hook in named if hook in backend)
    if not found:
        raise _lacks(backend, part)
    return found


def _lacks(backend: Backend, what: str) -> OpNotImplemented:
    has = sorted(hook for hook in backend.functions if hook not in HOOKS)
    return OpNotImplemented(
        f"backend '{backend.name}' does not implement {what}",
        slug="op-not-implemented",
        it_has=", ".join(has) or "nothing",
    )


def _precisions(backend: Backend, precision: str | None) -> Iterator[str]:
    """The one that was asked for, or all that the backend declares."""
    if precision is None:
        yield from (name for name in POLICIES if name in backend.computes)
        return
    if precision not in POLICIES:
        raise ConfigError(
            f"no precision is called '{precision}'",
            slug="unknown-precision",
            nearest=nearest(precision, POLICIES),
            there_are=", ".join(POLICIES),
        )
    yield precision


def _print_row(verdict: Verdict) -> None:
    """One line as soon as a half-op is judged, so that a slow kernel is seen to be slow."""
    row = row_of(verdict)
    worst = f"{row.worst:7.2f} of tolerance" if row.status == "passed" else ""
    of = f"{row.failed_cases} of " if row.failed_cases else ""
    cases = f"{of}{row.cases} cases" if row.cases else row.reason
    print(f"  {row.hook:<32} {row.precision:<5} {row.cell:<12} {cases:<14} {worst}".rstrip())
    sys.stdout.flush()


def _print_end(rows: list[Row], verdicts: list[Verdict]) -> None:
    found = ", ".join(f"{number} {status}" for status, number in counts(rows).items() if number)
    print(f"\n{found or 'nothing to judge'}")
    excused = sum(len(row.excused) for row in rows)
    if excused:
        reasons = sorted({reason for row in rows for _, reason in row.excused})
        print(f"{excused} cases excused: {'; '.join(reasons)}")
    for verdict in verdicts:
        if verdict.status == "xfail":
            print(f"{verdict.hook}: xfail, {verdict.reason}")
        if not verdict.failures:
            continue
        print()
        for failure in verdict.failures[:EXPLAINED]:
            print(failure)
        more = verdict.failed_cases - EXPLAINED
        if more > 0:
            print(f"and {more} more cases of {verdict.hook}")
