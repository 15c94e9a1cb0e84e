"""Read JSON from a file that may be damaged or a stranger's: of bounded size, no name twice."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from harness.errors import HarnessError, shortened
from harness.files.checkpoint_names import damaged
from harness.files.disk import open_file, read_exactly


def read_json(path: Path, at_most: int, refuse: Callable[..., HarnessError] = damaged) -> Any:
    """What a JSON file of at_most bytes says.

    refuse: makes the error of a file that is something else, from path, expected and found.
    """
    with open_file(path) as (file, size):
        if size > at_most:
            raise refuse(path, expected=f"at most {at_most:,} bytes", found=f"{size:,}")
        raw = bytearray(size)
        read_exactly(file, memoryview(raw), path)
    try:
        return parse(raw)
    except (ValueError, RecursionError) as error:
        raise refuse(path, expected="JSON", found=shortened(error)) from None


def parse(raw: bytes | bytearray) -> Any:
    """What UTF-8 JSON says. Raises ValueError (twice the same name too) or RecursionError."""
    return json.loads(raw.decode(), object_pairs_hook=_without_repetition)


def _without_repetition(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a name stands twice in one object")
    return found
