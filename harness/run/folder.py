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
import platform
import re
import secrets
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path
from typing import Any

from harness import __version__
from harness.errors import CheckpointError, ConfigError, ResourceError
from harness.files.disk import write_atomically
from harness.machine.pinned import SPEED_VARIABLES
from harness.machine.threads import THREAD_VARIABLES

ATTEMPTS = 1000  # of 65,536 suffixes in one second
COMMAND_TIMEOUT_S = 5.0

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


def versions() -> dict[str, Any]:
    """What may change the numbers or the speed of a run; what can't be found out is null."""
    return {
        "harness": __version__,
        "commit": commit(),
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "platform": platform.platform(),
        "cpu": _cpu_model(),
        "cpu_count": os.cpu_count(),
        "numpy": _numpy(),
        "environment": {
            key: value
            for key, value in sorted(os.environ.items())
            if key in SPEED_VARIABLES or key in THREAD_VARIABLES or key.endswith("_NUM_THREADS")
        },
        "distributions": _distributions(),
    }


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


def _numpy() -> dict[str, Any]:
    """NumPy, the BLAS it was built for, and the ones that are loaded, with the kernels they chose."""
    import numpy as np
    import threadpoolctl  # type: ignore[import-untyped]

    built = np.show_config(mode="dicts") or {}
    blas = built.get("Build Dependencies", {}).get("blas", {})
    wanted = (
        "user_api",
        "internal_api",
        "version",
        "architecture",
        "threading_layer",
        "num_threads",
    )
    return {
        "version": np.__version__,
        "built_for": {key: blas.get(key) for key in ("name", "version")},
        "thread_pools": [
            {key: pool[key] for key in wanted if key in pool}
            for pool in threadpoolctl.threadpool_info()
        ],
    }


def _cpu_model() -> str | None:
    if sys.platform == "darwin":
        return _output_of(["sysctl", "-n", "machdep.cpu.brand_string"])
    try:
        with open("/proc/cpuinfo", encoding="utf-8", errors="replace") as file:
            for line in file:
                if line.startswith("model name"):
                    return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine() or None


def commit(*paths: str) -> str | None:
    """The commit of the checkout that this file is tracked in, with `+` if files were changed.

    paths: those that count, from the checkout's root; all without any.
    """
    git = ["git", "-C", str(Path(__file__).parent)]
    # An installed copy may lie inside somebody else's checkout, which says nothing about us.
    if _output_of([*git, "ls-files", "--error-unmatch", "--", Path(__file__).name]) is None:
        return None
    found = _output_of([*git, "rev-parse", "HEAD"])
    of_root = [f":/{path}" for path in paths]
    changed = _output_of([*git, "status", "--porcelain", "--untracked-files=no", "--", *of_root])
    return found and found + ("+" if changed else "")


def _distributions() -> dict[str, str]:
    found = {}
    for distribution in metadata.distributions():
        name = distribution.metadata["Name"]  # None where the metadata is damaged
        if name:
            found[name.lower()] = distribution.version
    return dict(sorted(found.items()))


def _output_of(command: list[str]) -> str | None:
    try:
        done = subprocess.run(
            command,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=COMMAND_TIMEOUT_S,
            check=True,
            stdin=subprocess.DEVNULL,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()
