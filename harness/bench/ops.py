"""Time every op, on every backend, at small and real shapes: `harness bench ops`.

Backends take turns, A B A B, on the same data, each on its own buffers. A result is checked before it
is timed, and what the last round left is checked again.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import threadpoolctl  # type: ignore[import-untyped]

from harness.bench.cases import EXCUSED, Bound, Case, Shape, make_case, matrix
from harness.bench.report import Row, as_json, as_markdown, as_text, duration, shown, write
from harness.bench.roofline import score, work_of
from harness.bench.timing import MIN_ROUNDS, Timing, interleave, measure, once, rounds_within
from harness.contract import Half, Op, OpTable
from harness.contract.precision import Precision
from harness.errors import ConfigError, HarnessError, NumericsError, PluginError
from harness.machine.device_peaks import AnyPeaks, DevicePeaks, best_of, device_peaks
from harness.machine.peaks import peaks as measured_peaks
from harness.machine.processor import load_average
from harness.machine.threads import cores_allowed
from harness.plugins.loading import Backend, all_ops, installed, load

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
    peaks: AnyPeaks | None = None,
    table: OpTable | None = None,
    precision: str = "fp32",
    show: Callable[[str], None] = print,
) -> int:
    """Time ops on backends, print the table, and give the exit code: 6 if any result was wrong.

    backends: names or files; without any, all that are installed. ops: op or half names, or all.
    shapes: `all`, `small` or `real`. threads: of the BLAS library; None: as it is.
    report: REPORT.json and REPORT.md are written. precision: of the buffers, fp32, tf32 or bf16.
    What is on a device is timed by the device's clock, and held against what the device reaches.
    Raises ConfigError or PluginError for a name that is unknown.
    """
    if shapes not in KINDS:
        raise ConfigError(
            f"shapes={shapes} is unknown", slug="unknown-shapes", there_are=", ".join(KINDS)
        )
    table = table or all_ops()
    Precision(precision)  # is there one of this name?
    cases = matrix(table, tuple(ops), KINDS[shapes])
    found = load_all(backends, table)
    rows: list[Row] = []
    with threadpoolctl.threadpool_limits(threads):
        devices = devices_of(found, precision)
        peaks = peaks or _peaks_of_host(found, devices)
        load = load_average()
        for op, half, shape in cases:
            rows += bench_case(op, half, shape, found, peaks, budget_s, precision, devices)
            show(progress_line(rows[-len(found) :]))
    show("\n" + as_text(rows, peaks, devices))
    cores = cores_allowed()
    if load > BUSY_SHARE * cores:
        show(f"load {load:.1f} on {cores} cores before we began: others were running")
    if report is not None:
        files = write(
            report,
            {**as_json(rows, peaks, devices), "load": load},
            as_markdown(rows, peaks, devices),
        )
        show("written: " + ", ".join(map(str, files)))
    return REFUSED if any(row.status == "refused" for row in rows) else 0


def devices_of(backends: Mapping[str, Backend | str], precision: str) -> dict[str, DevicePeaks]:
    """Backend -> what its device reaches. Backends on one device share the best rates."""
    found = {}
    for name, backend in backends.items():
        if isinstance(backend, Backend) and not _closed(backend):
            peaks = device_peaks(backend, precision)
            if peaks is not None:
                found[name] = peaks
    return best_of(found)


def _peaks_of_host(
    backends: Mapping[str, Backend | str], devices: Mapping[str, DevicePeaks]
) -> AnyPeaks:
    """The host's peaks, unless nothing runs on the host: measuring them takes seconds."""
    if devices and set(backends) == set(devices):
        return next(iter(devices.values()))
    return measured_peaks()


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
    if backend.slowness:  # minutes for one row, and of no use
        return "excused", backend.slowness
    if half.name not in backend:
        return "unsupported", "the backend does not have it"
    reason = _closed(backend)
    return ("not run", reason) if reason else ("", "")


def _closed(backend: Backend) -> str:
    """Why a backend's device cannot be opened; empty where it can."""
    try:
        backend.open_device().empty(256)
    except Exception as error:
        why = error.line if isinstance(error, HarnessError) else error
        return f"the device {backend.device} cannot be opened: {why}"
    return ""


def bench_case(
    op: Op,
    half: Half,
    shape: Shape,
    backends: Mapping[str, Backend | str],
    peaks: AnyPeaks,
    budget_s: float = BUDGET_S,
    precision: str = "fp32",
    devices: Mapping[str, DevicePeaks] | None = None,
) -> list[Row]:
    """Check one case on every backend, then time those that are right, in turns: a row for each.

    peaks: of the host; devices: backend -> its own.
    """
    devices = devices or {}
    rows: dict[str, Row] = {}
    ready: dict[str, Bound] = {}
    case: Case | None = None
    for name, backend in backends.items():
        rows[name] = Row(half.name, str(shape), shape.kind, name, "timed", precision=precision)
        status, reason = reason_not_to_run(backend, name, half, shape.kind)
        if isinstance(backend, Backend) and backend.computes_in(op.name, precision) is None:
            status, reason = "unsupported", f"the backend does not have it in {precision}"
        if status:
            rows[name] = replace(rows[name], status=status, reason=reason)
            continue
        assert isinstance(backend, Backend)
        case = case or make_case(op, half, shape, precision=precision)
        rows[name] = _checked(rows[name], backend, case, ready)
    for name, timing in _take_turns(ready, budget_s).items():
        rows[name] = finished(rows[name], ready[name], timing, devices.get(name, peaks))
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

    A backend takes turns as long as it has budget, so a slow neighbour does not limit a fast one to
    three rounds. Everybody takes part in the first rounds.
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


def finished(row: Row, bound: Bound, timing: Timing, peaks: AnyPeaks) -> Row:
    """The row with its numbers, if what the last round left is still right."""
    host_s = None
    if bound.device_seconds is not None:
        # A device's clock counts many calls in a row: what is checked is one, from the start.
        host_s = measure(lambda: bound(), rounds=MIN_ROUNDS, setup=bound.setup).median_s
    try:
        error = bound.check_last()
    except HarnessError as wrong:
        return replace(row, status="refused", reason="after timing: " + one_line(wrong))
    work = work_of(bound.case.half, bound.case.dims, bound.case.precision)
    return replace(
        row,
        error=max(error, row.error or 0.0),
        work=work,
        timing=timing,
        host_s=host_s,
        score=score(work, timing.median_s, peaks),
    )


def one_line(error: BaseException) -> str:
    """An error as one line of a table."""
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
