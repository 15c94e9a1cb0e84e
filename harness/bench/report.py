"""Show the results in one table, as text, Markdown or JSON, with what was not measured and why."""

import json
import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from harness.bench.roofline import Score, Work
from harness.bench.timing import Timing
from harness.errors import DataError
from harness.machine import device_peaks
from harness.machine.device_peaks import AnyPeaks, DevicePeaks
from harness.machine.nvidia_driver import computed_on_cpu
from harness.machine.peaks import as_record

FORMAT = 1
IMPLAUSIBLE_PERCENT = (
    115  # of the matmul peak: the best of many rounds is hardly beaten by this much
)
HOST_SHARE, HOST_LEAST_S = 2.0, 1e-3
"""A device's call that the host waits for this much longer, and for more than a millisecond, is told."""

STATUSES = ("timed", "refused", "unsupported", "excused", "not run")
HEADERS = (
    "backend", "median", "p10", "p90", "GB/s", "GFLOP/s",
    "% copy", "% matmul", "% roofline", "bound", "times fastest",
)  # fmt: skip


@dataclass(frozen=True)
class Row:
    """One backend at one case.

    status: `timed`; `refused` (its result is wrong); `unsupported` (it does not have the half);
        `excused` (too slow at this shape); `not run`. reason: of all but the first.
    where, source: the function that ran, and its distribution or sha256.
    error: err/tolerance of the checked result, at most 1.
    precision: of the case. host_s: of a device's call, by the host's clock and with the wait; all the
        other seconds are by the device's.
    """

    half: str
    shape: str
    kind: str
    backend: str
    status: str
    reason: str = ""
    where: str = ""
    source: str = ""
    work: Work | None = None
    error: float | None = None
    timing: Timing | None = None
    score: Score | None = None
    precision: str = "fp32"
    host_s: float | None = None

    @property
    def group(self) -> str:
        return f"{self.half} {self.shape}" + (
            "" if self.precision == "fp32" else f" {self.precision}"
        )

    def record(self) -> dict[str, Any]:
        """This row as JSON: seconds, bytes, per cent."""
        found = {k: v for k, v in asdict(self).items() if v not in (None, "")}
        if self.timing is not None:
            found["timing"] = {
                "median_s": self.timing.median_s,
                "p10_s": self.timing.p10_s,
                "p90_s": self.timing.p90_s,
                "rounds": self.timing.rounds,
            }
        return found


def grouped(rows: Iterable[Row]) -> dict[str, list[Row]]:
    """The timed rows by half and shape, fastest first."""
    groups: dict[str, list[Row]] = {}
    for row in rows:
        if row.timing is not None:
            groups.setdefault(row.group, []).append(row)
    return {name: sorted(found, key=_median_s) for name, found in groups.items()}


def _median_s(row: Row) -> float:
    assert row.timing is not None
    return row.timing.median_s


def cells(row: Row, fastest: Row) -> tuple[str, ...]:
    """A row of the table, under HEADERS."""
    assert row.timing is not None and row.score is not None
    timing, score = row.timing, row.score
    return (
        row.backend,
        duration(timing.median_s),
        duration(timing.p10_s),
        duration(timing.p90_s),
        figure(score.bytes_per_s / 1e9),
        figure(score.flops_per_s / 1e9),
        figure(score.copy_percent),
        figure(score.matmul_percent),
        figure(score.roofline_percent),
        score.bound + (", in cache" if score.in_cache else ""),
        figure(timing.median_s / _median_s(fastest)),
    )


def as_text(
    rows: Sequence[Row], peaks: AnyPeaks, devices: Mapping[str, DevicePeaks] | None = None
) -> str:
    """The table for a terminal, fixed width. devices: backend -> its own peaks, where it has some."""
    groups = grouped(rows)
    lines = {name: [cells(row, found[0]) for row in found] for name, found in groups.items()}
    every = [HEADERS, *(line for found in lines.values() for line in found)]
    widths = [max(len(line[i]) for line in every) for i in range(len(HEADERS))]
    text = [*_heading(peaks, devices), "", _aligned(HEADERS, widths)]
    for name, found in lines.items():
        text += [name, *(_aligned(line, widths) for line in found)]
    return "\n".join([*text, "", *closing(rows)])


def _aligned(line: tuple[str, ...], widths: list[int]) -> str:
    first = f"  {line[0]:<{widths[0]}}"
    rest = [f"{cell:>{width}}" for cell, width in zip(line[1:], widths[1:], strict=True)]
    return "  ".join([first, *rest]).rstrip()


def _heading(peaks: AnyPeaks, devices: Mapping[str, DevicePeaks] | None) -> list[str]:
    """The peaks that the percentages refer to: the host's, then each device's."""
    known = str(peaks).splitlines()
    others = [
        line for line in dict.fromkeys(map(str, (devices or {}).values())) if line not in known
    ]
    return [*known, *others, *_on_cpu(devices)]


def _on_cpu(devices: Mapping[str, DevicePeaks] | None) -> list[str]:
    """A line that says so where a GPU's kernels ran on the CPU: their times are not a GPU's."""
    setting = computed_on_cpu() if devices else ""
    return [f"{setting}: kernels ran on the CPU; their times are of no GPU"] if setting else []


def as_markdown(
    rows: Sequence[Row], peaks: AnyPeaks, devices: Mapping[str, DevicePeaks] | None = None
) -> str:
    """The table for a page."""
    headers = ("half and shape", *HEADERS)
    text = [
        *(f"{line}  " for line in _heading(peaks, devices)),
        "",
        f"| {' | '.join(headers)} |",
        "|---|---|" + "---:|" * 8 + "---|---:|",
    ]
    for name, found in grouped(rows).items():
        for row in found:
            label = name if row is found[0] else ""
            text.append(f"| {' | '.join((label, *cells(row, found[0])))} |")
    return "\n".join([*text, "", *(f"* {line}" for line in closing(rows))]) + "\n"


def closing(rows: Sequence[Row]) -> list[str]:
    """How many cases were timed, and how many were not, by reason. Refused ones are spelled out."""
    counts = Counter(row.status for row in rows)
    text = [", ".join(f"{counts[s]} {s}" for s in STATUSES if counts[s]) or "no cases"]
    reasons = Counter((r.backend, r.status, r.reason) for r in rows if r.status in STATUSES[2:])
    for (backend, status, reason), count in reasons.items():
        text.append(f"{status}: {count} of {backend}: {reason}")
    text += [
        f"refused: {r.group} of {r.backend}: {r.reason}" for r in rows if r.status == "refused"
    ]
    text += [
        f"{row.group} of {row.backend}: {duration(row.host_s)} by the host's clock, with its wait"
        for row in rows
        if row.host_s is not None and row.timing is not None
        if row.host_s > HOST_SHARE * row.timing.median_s and row.host_s > HOST_LEAST_S
    ]
    if any(row.score and row.score.in_cache for row in rows):
        text.append(
            "in cache: the case's bytes are below four last-level caches, so it may be faster than"
            " a copy from memory; per cent of copy and roofline may then exceed 100"
        )
    fast = [r for r in rows if r.score and r.score.matmul_percent > IMPLAUSIBLE_PERCENT]
    if fast:
        text.append(
            f"{len(fast)} rows are above {IMPLAUSIBLE_PERCENT}% of the matmul peak, which must have been"
            " measured on a busy machine: `harness bench peaks` measures it again"
        )
    return text


def peaks_record(peaks: AnyPeaks) -> dict[str, Any]:
    """The peaks that the percentages refer to, as JSON."""
    if isinstance(peaks, DevicePeaks):
        return device_peaks.as_record(peaks)
    return as_record(peaks)


def as_json(
    rows: Sequence[Row], peaks: AnyPeaks, devices: Mapping[str, DevicePeaks] | None = None
) -> dict[str, Any]:
    """Everything, for machines."""
    of_devices = {name: peaks_record(found) for name, found in (devices or {}).items()}
    on_cpu = _on_cpu(devices)
    return {
        "format": FORMAT,
        "peaks": peaks_record(peaks),
        **({"devices": of_devices} if of_devices else {}),
        **({"on_cpu": on_cpu[0]} if on_cpu else {}),
        "counts": dict(Counter(row.status for row in rows)),
        "rows": [row.record() for row in rows],
    }


def write(stem: Path, record: dict[str, Any], markdown: str) -> tuple[Path, Path]:
    """Write STEM.json and STEM.md; the folder is made. Raises DataError where it cannot."""
    json_file, markdown_file = stem.with_suffix(".json"), stem.with_suffix(".md")
    try:
        stem.parent.mkdir(parents=True, exist_ok=True)
        json_file.write_text(json.dumps(record, indent=1) + "\n")
        markdown_file.write_text(markdown)
    except OSError as error:
        raise DataError(
            "the benchmark's report cannot be written",
            slug="bench-report-not-written",
            where=stem,
            reason=error,
        ) from error
    return json_file, markdown_file


def shown(where: str) -> str:
    """A `file:line` as the user would type it: relative where it lies below the current folder."""
    here = str(Path.cwd()) + os.sep
    return where.removeprefix(here)


def duration(seconds: float) -> str:
    """Three figures and a unit: 412 ms."""
    for unit, scale in (("s", 1.0), ("ms", 1e-3)):
        if seconds >= scale:
            return f"{figure(seconds / scale)} {unit}"
    return f"{figure(seconds / 1e-6)} us"


def figure(value: float) -> str:
    """Three figures, without an exponent: 0.0123, 4.56, 789, 12345."""
    if value >= 100:
        return f"{value:.0f}"
    return np.format_float_positional(value, 3, unique=False, fractional=False, trim="-")
