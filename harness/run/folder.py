"""Give each run a folder of its own, and write down there what it ran with.

runs/tiny-20250131-142530-9f3c/
    run.json        its name, when it was made, and its place in the order of runs
    config.yaml     the configuration, as it was resolved
    versions.json   Python, machine, BLAS, distributions, commit
    metrics.jsonl   (harness.run.metrics)
    checkpoints/    (harness.checkpoint)
"""

import fcntl
import json
import os
import re
import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from harness.errors import CheckpointError, ConfigError, ResourceError
from harness.files.disk import write_atomically
from harness.machine.provenance import versions

ATTEMPTS = 1000  # of 65,536 suffixes in one second

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}", re.ASCII)
_SUFFIX = re.compile(r"-\d{8}-\d{6}-[0-9a-f]{4}", re.ASCII)


def create(base: Path, name: str) -> Path:
    """Make folder `<base>/<name>-<date>-<time>-<4 hex digits>`; no two runs ever get the same one."""
    _check_name(name)
    order = 1 + max((_order(run)[0] for run in _runs(base, name)), default=0)
    for _ in range(ATTEMPTS):
        run = base / f"{name}-{time.strftime('%Y%m%d-%H%M%S')}-{secrets.token_hex(2)}"
        try:
            os.makedirs(base, exist_ok=True)
            os.mkdir(run)
        except FileExistsError:
            continue
        except OSError as error:
            raise _not_made(run, error) from error
        created = time.strftime("%Y-%m-%dT%H:%M:%S%z")
        write_json_atomically(run / "run.json", {"name": name, "order": order, "created": created})
        return run
    raise _not_made(base / name, f"{ATTEMPTS} names were taken")


def find_newest(base: Path, name: str) -> Path | None:
    """The run of this name that was made last, for resume=auto; None if there is none.

    Runs are ordered by the counter in run.json, because a clock may go back. Runs that started together
    may share a count: then the time at which the folder was made decides, then the name.
    """
    _check_name(name)
    return max(_runs(base, name), key=_order, default=None)


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Let one process at a time train a run: two that resume it at once would write over each other.

    The lock goes with the process, however that ends. Raises CheckpointError where another has it.
    """
    descriptor = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise CheckpointError(
                f"another process is training this run: {folder.name}",
                slug="run-in-use",
                where=folder.absolute(),
                effect="this one did nothing",
                do="wait for it, or resume=never starts a run of its own",
            ) from None
        except OSError:
            pass  # a file system without locks; then nothing is promised
        yield
    finally:
        os.close(descriptor)


def write_config(run: Path, text: str) -> None:
    """Write the resolved configuration, already YAML."""
    _write(run / "config.yaml", text)


def write_versions(run: Path) -> None:
    write_json_atomically(run / "versions.json", versions())


def write_json_atomically(path: Path, content: Any) -> None:
    """Write content as JSON: after a failure or a crash there is the old file or the new, whole."""
    _write(path, json.dumps(content, indent=2, allow_nan=False) + "\n")


def _runs(base: Path, name: str) -> list[Path]:
    """The folders of runs of exactly this name: tiny is not tiny-big."""
    try:
        inside = list(base.iterdir())
    except FileNotFoundError:
        return []
    except OSError as error:
        raise ConfigError(
            f"folder of runs can't be read: {base}", slug="runs-unreadable", found=error
        ) from error
    return [
        path
        for path in inside
        if path.name.startswith(name)
        and _SUFFIX.fullmatch(path.name.removeprefix(name))
        and path.is_dir()
    ]


def _order(run: Path) -> tuple[int, int, str]:
    try:
        record = run / "run.json"
        order = json.loads(record.read_text(encoding="utf-8"))["order"]
        # Not the folder's own time: that one changes with every file in it.
        return (order if type(order) is int else 0), record.stat().st_mtime_ns, run.name
    except (OSError, ValueError, TypeError, KeyError, RecursionError):
        return 0, 0, run.name  # it ended before it was written down


def _check_name(name: str) -> None:
    if not _NAME.fullmatch(name):
        raise ConfigError(
            f"not a name for a run: {name!r}",
            slug="run-name-invalid",
            expected="letters, digits, '.', '_' and '-', at most 100, and a letter or digit first",
            do="name=tiny",
        )


def _not_made(run: Path, found: object) -> ResourceError:
    return ResourceError(
        f"folder of the run can't be made: {run}",
        slug="run-folder-not-made",
        where=run.absolute(),
        found=found,
        do="free space, or choose a folder that you can write to",
    )


def _write(path: Path, text: str) -> None:
    try:
        write_atomically(path, [text.encode()])
    except OSError as error:
        raise ResourceError(
            f"file of the run can't be written: {path.name}",
            slug="run-file-not-written",
            where=path.absolute(),
            found=error,
            do="free space, or choose a folder that you can write to",
        ) from error
