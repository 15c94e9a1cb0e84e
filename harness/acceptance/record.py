"""The record of an acceptance: its shape, the status of a part, and which record --resume continues.

    {"format": 1, "date": ..., "device": ..., "on": "NVIDIA H100 80GB HBM3" or "CUDA on the CPU",
     "machine": {...}, "commit": ..., "sources": ..., "asked": {...},
     "parts": {name: {"status", "reason", "seconds", "limit_s", "lanes": {worker: {check: result}}}}}

The key "lanes" holds results by worker. A result has `ok`: True, False, or None where this machine
cannot answer; then `reason` says why.
"""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from harness.errors import ConfigError, DataError

FORMAT = 1
ON_CPU = "CUDA on the CPU"
STATUSES = ("passed", "rehearsed", "failed", "out of time", "not run")
REASONS = 3
SOURCES = ("harness", "backends", "conf")

Results = Mapping[str, Mapping[str, Any]]


def status_of(found: Results, *, complete: bool, on_cpu: bool) -> tuple[str, str]:
    """(status, reason) of a part. Only what ran on a GPU can be `passed`."""
    results = {
        f"{worker}: {check}": result
        for worker, checks in found.items()
        for check, result in checks.items()
    }
    failed = [f"{name}: {r.get('reason', '')}" for name, r in results.items() if r["ok"] is False]
    skipped = [f"{name}: {r.get('reason', '')}" for name, r in results.items() if r["ok"] is None]
    judged = sum(result["ok"] is True for result in results.values())
    if failed:
        return "failed", _some(failed)
    if not complete:
        return "out of time", f"{len(results)} checks are done; --resume does the others"
    if not judged:
        return "not run", _some(skipped) or "there was nothing to run"
    reason = f"unavailable: {_some(skipped)}" if skipped else ""
    return ("rehearsed" if on_cpu else "passed"), reason


def _some(reasons: list[str]) -> str:
    more = f"; and {len(reasons) - REASONS} more" if len(reasons) > REASONS else ""
    return "; ".join(reason.partition("\n")[0] for reason in reasons[:REASONS]) + more


def sources_digest(root: Path) -> str:
    """The sha256 of what is judged. It does not need git, and sees files that are not committed."""
    digest = hashlib.sha256()
    for folder in SOURCES:
        for file in sorted((root / folder).rglob("*")):
            if file.is_file() and "__pycache__" not in file.parts:
                digest.update(file.relative_to(root).as_posix().encode() + b"\0")
                digest.update(hashlib.sha256(file.read_bytes()).digest())
    return digest.hexdigest()[:16]


def new_file(folder: Path, stem: str) -> Path:
    """A name that no record has yet: 2026-01-31-nvidia-h100.json, then ...-2.json."""
    found = _records(folder, stem)
    return folder / (f"{stem}.json" if not found else f"{stem}-{len(found) + 1}.json")


def to_resume(
    folder: Path, stem: str, same: Mapping[str, Any]
) -> tuple[Path, dict[str, Any]] | None:
    """The newest record of this day and device; None where there is none.

    same: key -> value that the record must have. Raises ConfigError where it has another.
    """
    found = _records(folder, stem)
    if not found:
        return None
    record = read(found[-1])
    different = [key for key, value in same.items() if record.get(key) != value]
    if different:
        raise ConfigError(
            f"{found[-1].name} cannot be continued: it is of another {', '.join(different)}",
            slug="acceptance-cannot-resume",
            where=found[-1],
            do="leave out --resume to begin a new record",
        )
    return found[-1], record


def _records(folder: Path, stem: str) -> list[Path]:
    numbered = [folder / f"{stem}.json"]
    while numbered[-1].exists():
        numbered.append(folder / f"{stem}-{len(numbered) + 1}.json")
    return numbered[:-1]


def read(file: Path) -> dict[str, Any]:
    """Read a record. Raises DataError for a file that is none."""
    try:
        record = json.loads(file.read_text(encoding="utf-8"))
        if record["format"] != FORMAT or not isinstance(record["parts"], dict):
            raise ValueError(f"format {record['format']}")
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise DataError(
            f"{file.name} is not the record of an acceptance",
            slug="acceptance-record-damaged",
            where=file,
            reason=f"{type(error).__name__}: {error}",
            do="leave out --resume, or delete the file",
        ) from error
    found: dict[str, Any] = record
    return found


def write(file: Path, record: Mapping[str, Any], markdown: str) -> None:
    """Write both files; the JSON is written whole or not at all."""
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        whole = file.with_name(f".{file.name}.part")
        whole.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
        whole.replace(file)
        file.with_suffix(".md").write_text(markdown, encoding="utf-8")
    except OSError as error:
        raise DataError(
            "the record cannot be written", slug="acceptance-not-written", where=file, reason=error
        ) from error
