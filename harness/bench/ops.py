"""Time every op, on every backend, at small and real shapes: `harness bench ops`.

Backends take turns, A B A B, on the same data, each on its own buffers. A result is checked before it
is timed, and what the last round left is checked again.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import threadpoolctl  # type: ignore[import-untyped]

from harness.bench.cases import EXCUSED, Bound, Case, Shape, make_case, matrix
from harness.bench.machine import load_average
from harness.bench.peaks import Peaks
from harness.bench.peaks import peaks as measured_peaks
from harness.bench.report import Row, as_json, as_markdown, as_text, duration, shown, write
from harness.bench.roofline import score, work_of
from harness.bench.timing import Timing, interleave, once, rounds_within
from harness.contract import Half, Op, OpTable
from harness.errors import ConfigError, HarnessError, NumericsError, PluginError
from harness.plugins import Backend, all_ops, installed, load

BUDGET_S = 0.4
"""Of timed calls, for each backend and case; three rounds are run at least, however long."""

BUSY_SHARE = 0.25
"""Of the cores: a load above this is said."""

KINDS = {"all": ("small", "real"), "small": ("small",), "real": ("real",)}
REFUSED = NumericsError.exit_code


def run_bench_ops(
    backends: Sequence[str] = (),
    ops: Sequence[str] = (),
    *,
    shapes: str = "all",
    threads: int | None = None,
    report: Path | None = None,
    budget_s: float = BUDGET_S,
    peaks: Peaks | None = None,
    table: OpTable | None = None,
    show: Callable[[str], None] = print,
) -> int:
    """Time ops on backends, print the table, and give the exit code: 6 if any result was wrong.

    backends: names or files; without any, all that are installed. ops: op or half names, or all.
    shapes: `all`, `small` or `real`. threads: of the BLAS library; None: as it is.
    report: REPORT.json and REPORT.md are written.
    Raises ConfigError or PluginError for a name that is unknown.
    """
    if shapes not in KINDS:
        raise ConfigError(
            f"shapes={shapes} is unknown", slug="unknown-shapes", there_are=", ".join(KINDS)
        )
    table = table or all_ops()
    cases = matrix(table, tuple(ops), KINDS[shapes])
    found = load_all(backends, table)
    rows: list[Row] = []
    with threadpoolctl.threadpool_limits(threads):
        peaks = peaks or measured_peaks()
        load = load_average()
        for op, half, shape in cases:
            rows += bench_case(op, half, shape, found, peaks, budget_s)
            show(progress_line(rows[-len(found) :]))
    show("\n" + as_text(rows, peaks))
    if load > BUSY_SHARE * peaks.machine.cores:
        show(f"load {load:.1f} on {peaks.machine.cores} cores before we began: others were running")
    if report is not None:
        files = write(report, {**as_json(rows, peaks), "load": load}, as_markdown(rows, peaks))
        show("written: " + ", ".join(map(str, files)))
    return REFUSED if any(row.status == "refused" for row in rows) else 0


def load_all(backends: Sequence[str], table: OpTable) -> dict[str, Backend | str]:
    """Each backend by name, or the reason why it cannot run.

    One that was asked for by name must load; of all that are installed, some may be broken.
    """
    found: dict[str, Backend | str] = {}
    for name in backends or sorted(installed()):
        try:
            found[name] = load(name, table)
        except PluginError as error:
            if backends:
                raise
            found[name] = error.facts.get("reason", error.headline)
    return found


def reason_not_to_run(backend: Backend | str, name: str, half: Half, kind: str) -> tuple[str, str]:
    """(status, reason) of a case that a backend does not run; ("", "") where it does."""
    if isinstance(backend, str):
        return "not run", backend
    if kind == "real" and name in EXCUSED:
        return "excused", EXCUSED[name]
    if half.name not in backend:
        return "unsupported", "the backend does not have it"
    try:
        backend.open_device().empty(256)
    except Exception as error:
        return "not run", f"the device {backend.device} cannot be opened: {error}"
    return "", ""


def bench_case(
    op: Op,
    half: Half,
    shape: Shape,
    backends: Mapping[str, Backend | str],
    peaks: Peaks,
    budget_s: float = BUDGET_S,
) -> list[Row]:
    """Check one case on every backend, then time those that are right, in turns: a row for each."""
    rows: dict[str, Row] = {}
    ready: dict[str, Bound] = {}
    case: Case | None = None
    for name, backend in backends.items():
        rows[name] = Row(half.name, str(shape), shape.kind, name, "timed")
        status, reason = reason_not_to_run(backend, name, half, shape.kind)
        if status:
            rows[name] = replace(rows[name], status=status, reason=reason)
            continue
        assert isinstance(backend, Backend)
        case = case or make_case(op, half, shape)
        rows[name] = _checked(rows[name], backend, case, ready)
    for name, timing in _take_turns(ready, budget_s).items():
        rows[name] = finished(rows[name], ready[name], timing, peaks)
    return list(rows.values())


def _checked(row: Row, backend: Backend, case: Case, ready: dict[str, Bound]) -> Row:
    """The row with its error; the case joins `ready` if its result is right."""
    try:
        bound = Bound(backend, case)
        error = bound.check()
    except Exception as wrong:
        return replace(row, status="refused", reason=one_line(wrong))
    ready[row.backend] = bound
    where = shown(backend.where(case.half.name))
    return replace(row, error=error, source=backend.source, where=where)


def _take_turns(ready: dict[str, Bound], budget_s: float) -> dict[str, Timing]:
    """Time the bound calls in turns; the slow ones leave when three rounds have used their budget.

    The turns are those of the backends that still have budget, so a fast one is not kept to three
    rounds by a slow neighbour: each shares its first rounds with everybody.
    """
    setups = {name: bound.setup for name, bound in ready.items()}
    rounds = {
        name: rounds_within(budget_s, once(bound, bound.setup)) for name, bound in ready.items()
    }
    seconds: dict[str, tuple[float, ...]] = dict.fromkeys(ready, ())
    while any(rounds.values()):
        turns = min(count for count in rounds.values() if count)
        playing = {name: bound for name, bound in ready.items() if rounds[name]}
        # The calls are warm: they were checked, and run once to count the rounds.
        timings = interleave(playing, rounds=turns, setups=setups, warmups=0)
        for name, timing in timings.items():
            seconds[name] += timing.seconds
            rounds[name] -= turns
    return {name: Timing(found) for name, found in seconds.items()}


def finished(row: Row, bound: Bound, timing: Timing, peaks: Peaks) -> Row:
    """The row with its numbers, if what the last round left is still right."""
    try:
        error = bound.check_last()
    except HarnessError as wrong:
        return replace(row, status="refused", reason="after timing: " + one_line(wrong))
    work = work_of(bound.case.half, bound.case.dims)
    return replace(
        row,
        error=max(error, row.error or 0.0),
        work=work,
        timing=timing,
        score=score(work, timing.median_s, peaks),
    )


def one_line(error: BaseException) -> str:
    """An error in a line of a table."""
    if isinstance(error, NumericsError):
        return error.facts.get("found", error.headline)
    return f"{type(error).__name__}: {error}".partition("\n")[0]


def progress_line(rows: Sequence[Row]) -> str:
    """A case as soon as it is done: its group, and each backend's median or status."""
    parts = [
        f"{row.backend} {duration(row.timing.median_s) if row.timing else row.status}"
        for row in rows
    ]
    return f"{rows[0].group}: " + ", ".join(parts)
