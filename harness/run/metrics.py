"""Write what a run measures, one JSON object a line, without ever stopping the run.

A line is there whole or not at all. Half a line that a crash left is cut off when the file is opened
again; half a line that a full disk left is cut off at once. JSON has no NaN, so the values nan, inf
and -inf are written as text.
"""

import json
import os
import sys
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Self

from harness.errors import DataError

_NONFINITE = {"nan": float("nan"), "inf": float("inf"), "-inf": float("-inf")}
_BLOCK_BYTES = 1 << 16


def warn_on_stderr(text: str) -> None:
    with suppress(OSError, ValueError):  # stderr may be on the same full disk, or closed
        print(text, file=sys.stderr, flush=True)


class MetricsFile:
    """Append records to a JSONL file. Lost lines are counted and reported once; nothing is raised.

    path: the file; it is made if it is not there, and half a last line in it is cut off.
    warn: called once, with one line of text, when the first line is lost.
    """

    def __init__(self, path: Path, warn: Callable[[str], None] = warn_on_stderr) -> None:
        self.path = path
        self.lost_lines = 0
        self._warn = warn
        self._warned = False
        self._descriptor: int | None = None
        self._whole_bytes = 0  # the file up to here is whole lines
        try:
            self._open()
        except OSError as error:
            self._tell(error)

    def write(self, record: Mapping[str, Any]) -> None:
        """Append one record; it has reached the operating system when this returns."""
        line = (json.dumps(_strict(record), separators=(",", ":")) + "\n").encode()
        try:
            if self._descriptor is None:
                self._open()
            self._append(line)
        except OSError as error:
            self.lost_lines += 1
            self._tell(error)

    def truncate_after(self, step: int) -> int:
        """Drop the records after step, which a resumed run makes anew. Returns how many lines went.

        The file is in the order of steps, so it is cut at the first line of a later one.
        """
        try:
            if self._descriptor is None:
                self._open()
            with open(self.path, "rb") as file:
                keep_bytes, dropped = _find_later(file.readlines(), step)
            self._cut(keep_bytes)
        except OSError as error:
            self._tell(error)
            return 0
        return dropped

    def close(self) -> None:
        if self._descriptor is not None:
            with suppress(OSError):
                os.close(self._descriptor)
            self._descriptor = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def _open(self) -> None:
        flags = os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC
        descriptor = os.open(self.path, flags, 0o666)
        try:
            self._whole_bytes = _end_of_last_line(descriptor)
            os.ftruncate(descriptor, self._whole_bytes)
        except OSError:
            os.close(descriptor)
            raise
        self._descriptor = descriptor

    def _append(self, line: bytes) -> None:
        assert self._descriptor is not None
        rest = memoryview(line)
        try:
            while rest:
                rest = rest[os.write(self._descriptor, rest) :]
        except OSError:
            # The next line must not continue half of this one. If even this fails, opening again
            # repairs it, before anything more is written.
            try:
                os.ftruncate(self._descriptor, self._whole_bytes)
            except OSError:
                self.close()
            raise
        self._whole_bytes += len(line)

    def _cut(self, whole_bytes: int) -> None:
        assert self._descriptor is not None
        os.ftruncate(self._descriptor, whole_bytes)
        self._whole_bytes = whole_bytes

    def _tell(self, error: OSError) -> None:
        if not self._warned:
            self._warned = True
            self._warn(f"metrics are being lost, training goes on: {self.path}: {error}")


def read(path: Path) -> list[dict[str, Any]]:
    """The records of a metrics file, nan and inf as numbers again; half a last line is left out."""
    try:
        lines = path.read_bytes().split(b"\n")
    except OSError as error:
        raise DataError(
            f"metrics can't be read: {path}", slug="metrics-unreadable", found=error
        ) from error
    records = []
    for number, line in enumerate(lines[:-1], start=1):  # the last one is empty, or half a line
        record = _parse(line)
        if record is None:
            raise DataError(
                f"not a metrics line: {path}:{number}",
                slug="metrics-line-damaged",
                expected="a JSON object",
                found=repr(line[:60]),
                do="delete the line",
            )
        records.append(_with_numbers(record))
    return records


def _parse(line: bytes) -> dict[str, Any] | None:
    try:
        record = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return record if isinstance(record, dict) else None


def _find_later(lines: list[bytes], step: int) -> tuple[int, int]:
    """Where the first line of a later step begins, and how many lines there are from there on."""
    begin = 0
    for index, line in enumerate(lines):
        at = (_parse(line) or {}).get("step")
        if isinstance(at, int | float) and at > step:
            return begin, len(lines) - index
        begin += len(line)
    return begin, 0


def _end_of_last_line(descriptor: int) -> int:
    """The size of the file without what follows its last newline."""
    end = os.fstat(descriptor).st_size
    while end > 0:
        begin = max(0, end - _BLOCK_BYTES)
        newline = os.pread(descriptor, end - begin, begin).rfind(b"\n")
        if newline >= 0:
            return begin + newline + 1
        end = begin
    return 0


def _strict(value: Any) -> Any:
    """value in what JSON has: nan and inf as text, NumPy's scalars as Python's."""
    if isinstance(value, Mapping):
        return {str(key): _strict(child) for key, child in value.items()}
    if isinstance(value, list | tuple):
        return [_strict(child) for child in value]
    if hasattr(value, "item"):
        value = value.item()
    if isinstance(value, float) and (value != value or value in (float("inf"), float("-inf"))):
        return str(value)
    return value


def _with_numbers(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _with_numbers(child) for key, child in value.items()}
    if isinstance(value, list):
        return [_with_numbers(child) for child in value]
    return _NONFINITE.get(value, value) if isinstance(value, str) else value
