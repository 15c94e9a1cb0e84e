"""Write what was judged: JSON for machines, Markdown for people, a badge for a README.

conformance.json    every verdict: op half, precision, status, digits, worst case, versions, machine
conformance.md      the same as a table, the worst cases as commands
badge.json          for shields.io's endpoint badge
badge.svg           the same badge, without asking anybody
"""

import json
import math
import os
import platform
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape

from harness import __version__
from harness.errors import ResourceError
from harness.files.system import cpu_model

PACKAGES = ("numpy", "numba", "cupy", "ml_dtypes", "hypothesis", "pytest")
# What is worse stands first: of several verdicts on one half-op, the worst counts.
SEVERITY = ("failed", "xfail", "passed", "not run", "unsupported")
COLOURS = {"failed": "#c0392b", "xfail": "#b8860b", "passed": "#2e7d32", "none": "#757575"}


@dataclass
class Row:
    """All that was found of one half-op of one backend at one precision."""

    backend: str
    hook: str
    precision: str
    arithmetic: str | None = None
    status: str = "unsupported"
    reason: str = ""
    cases: int = 0
    failed_cases: int = 0
    xfail_cases: int = 0
    excused: list[tuple[str, str]] = field(default_factory=list)
    worst: float = 0.0
    worst_case: str = ""
    digits: float | None = None
    failures: list[str] = field(default_factory=list)
    command: str = ""

    @property
    def cell(self) -> str:
        """The row's status in a table: digits where it passed."""
        if self.status == "passed":
            return "exact" if self.digits is None else f"{self.digits:.1f} digits"
        return self.status


def row_of(verdict: Any) -> Row:
    """A verdict as a row of plain values."""
    worst, worst_case = verdict.worst
    command = verdict.failures[0].command if verdict.failures else ""
    return Row(
        verdict.backend,
        verdict.hook,
        verdict.precision,
        verdict.arithmetic,
        verdict.status,
        verdict.reason,
        verdict.cases,
        verdict.failed_cases,
        len(verdict.expected_failures),
        [(case, reason) for case, reason in verdict.excused],
        worst,
        worst_case,
        verdict.digits if math.isfinite(verdict.digits) else None,
        [str(failure) for failure in verdict.failures[:3]],
        command,
    )


def merged(rows: Iterable[Row]) -> list[Row]:
    """One row for each backend, half-op and precision, in the order of their first verdict."""
    by_key: dict[tuple[str, str, str], Row] = {}
    for row in rows:
        key = (row.backend, row.hook, row.precision)
        held = by_key.setdefault(key, row)
        if held is row:
            continue
        if SEVERITY.index(row.status) < SEVERITY.index(held.status):
            held.status, held.reason = row.status, row.reason
        held.cases += row.cases
        held.failed_cases += row.failed_cases
        held.xfail_cases += row.xfail_cases
        held.excused += row.excused
        held.failures += row.failures
        held.command = held.command or row.command
        if row.worst > held.worst:
            held.worst, held.worst_case = row.worst, row.worst_case
        if row.digits is not None:
            held.digits = min(row.digits, held.digits or math.inf)
    return list(by_key.values())


def again(row: Row) -> str:
    """The command that runs a row's worst case again."""
    if row.command or not row.worst_case:
        return row.command
    return f"harness check {row.backend}::{row.hook} --case '{row.worst_case}'"


def counts(rows: Sequence[Row]) -> dict[str, int]:
    """How many half-ops have each status; those that nobody has are not hidden among the passed."""
    return {status: sum(row.status == status for row in rows) for status in SEVERITY}


def machine() -> dict[str, Any]:
    """Versions and machine: what a result depends on besides the code."""
    versions = {"harness": __version__, "python": platform.python_version()}
    for package in PACKAGES:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            continue
    return {
        "versions": versions,
        "system": f"{platform.system()} {platform.machine()}",
        "processor": cpu_model() or "unknown",
        "cores": os.cpu_count(),
        "byteorder": sys.byteorder,
    }


def write_report(folder: str | Path, rows: Sequence[Row]) -> Path:
    """Write the four files into a folder, which is made. Raises ResourceError where it cannot."""
    folder, rows = Path(folder), merged(rows)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "conformance.json").write_text(_json(rows))
        (folder / "conformance.md").write_text(_markdown(rows))
        badge = _badge(rows)
        (folder / "badge.json").write_text(json.dumps(badge, indent=2) + "\n")
        (folder / "badge.svg").write_text(_svg(badge["label"], badge["message"], badge["color"]))
    except OSError as error:
        raise ResourceError(
            f"the report cannot be written into {folder}",
            slug="report-not-written",
            reason=error,
            do="choose another folder",
        ) from error
    return folder


def _json(rows: Sequence[Row]) -> str:
    document = {
        "format": "harness-conformance-1",
        **machine(),
        "counts": counts(rows),
        "halves": [{**vars(row), "worst_command": again(row)} for row in rows],
    }
    return json.dumps(document, indent=2) + "\n"


def _markdown(rows: Sequence[Row]) -> str:
    found = machine()
    versions = ", ".join(f"{name} {number}" for name, number in found["versions"].items())
    lines = [
        "# Conformance",
        "",
        "Digits that agree with float64 where a half-op passed; err/tolerance of its worst case is",
        "below 1 then. *unsupported*: the backend does not have it. *xfail*: it declares it wrong.",
        "",
        f"{found['processor']}, {found['cores']} cores, {found['system']}; {versions}",
        "",
        ", ".join(f"{number} {status}" for status, number in counts(rows).items() if number),
        "",
    ]
    for backend in dict.fromkeys(row.backend for row in rows):
        ours = [row for row in rows if row.backend == backend]
        lines += [f"## {backend}", ""]
        lines += ["| half-op | precision | computes in | result | cases | err/tolerance |"]
        lines += ["|---|---|---|---|---|---|"]
        for row in ours:
            worst = f"{row.worst:.2f}" if row.status == "passed" else ""
            cells = (row.hook, row.precision, row.arithmetic or "", row.cell, row.cases, worst)
            lines.append("| " + " | ".join(map(str, cells)) + " |")
        lines += ["", *_notes(ours), ""]
    return "\n".join(lines)


def _notes(rows: Sequence[Row]) -> list[str]:
    lines = [f"- {r.hook} at {r.precision}, {r.status}: {r.reason}" for r in rows if r.reason]
    excused = sum(len(row.excused) for row in rows)
    if excused:
        reasons = sorted({reason for row in rows for _, reason in row.excused})
        lines.append(f"- {excused} cases excused: {'; '.join(reasons)}")
    commands = [again(row) for row in rows if row.status in ("failed", "passed") and again(row)]
    if commands:
        lines += ["", "The worst case of each, to run again:", "", "```", *commands, "```"]
    return lines


def _badge(rows: Sequence[Row]) -> dict[str, Any]:
    """The badge in the form of shields.io's endpoint."""
    number = counts(rows)
    judged = number["passed"] + number["failed"] + number["xfail"]
    worst = next((status for status in SEVERITY[:3] if number[status]), "none")
    message = f"{number['passed']}/{judged} half-ops" if judged else "not run"
    return {
        "schemaVersion": 1,
        "label": "conformance",
        "message": message + (f", {number['xfail']} xfail" if number["xfail"] else ""),
        "color": COLOURS[worst],
    }


def _svg(label: str, message: str, colour: str) -> str:
    """A flat badge. Eleven-pixel letters are about 6.5 wide."""
    left, right = (round(6.5 * len(text) + 12) for text in (label, message))
    width = left + right
    label, message = escape(label), escape(message)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="20" role="img" '
        f'aria-label="{label}: {message}">'
        f"<title>{label}: {message}</title>"
        f'<rect width="{left}" height="20" fill="#444"/>'
        f'<rect x="{left}" width="{right}" height="20" fill="{colour}"/>'
        '<g fill="#fff" font-family="Verdana,DejaVu Sans,sans-serif" font-size="11" '
        'text-anchor="middle">'
        f'<text x="{left / 2}" y="14">{label}</text>'
        f'<text x="{left + right / 2}" y="14">{message}</text>'
        "</g></svg>\n"
    )


def summary_lines(rows: Sequence[Row]) -> list[str]:
    """A table for a terminal: backend and precision, how many half-ops have which status."""
    rows = merged(rows)
    width = max((len(row.backend) for row in rows), default=7)
    head = f"{'backend':<{width}}  precision" + "".join(f"{status:>13}" for status in SEVERITY)
    lines = [head + f"{'cases':>8}{'excused':>9}  worst err/tolerance"]
    for key in dict.fromkeys((row.backend, row.precision) for row in rows):
        ours = [row for row in rows if (row.backend, row.precision) == key]
        numbers = "".join(f"{number:>13}" for number in counts(ours).values())
        cases = sum(row.cases for row in ours)
        excused = sum(len(row.excused) for row in ours)
        worst = max(ours, key=lambda row: row.worst)
        at = f"{worst.worst:.2f} {worst.worst_case}" if worst.worst_case else ""
        lines.append(
            f"{key[0]:<{width}}  {key[1]:<9}{numbers}{cases:>8}{excused:>9}  {at}".rstrip()
        )
    return lines
