"""Where a number comes from: harness, commit, Python, machine, BLAS, distributions."""

import os
import platform
import subprocess
from functools import lru_cache
from importlib import metadata
from pathlib import Path
from typing import Any

from harness import __version__
from harness.files.system import cpu_model, import_folders
from harness.machine.pinned import SPEED_VARIABLES
from harness.machine.threads import THREAD_VARIABLES

COMMAND_TIMEOUT_S = 5.0


def versions() -> dict[str, Any]:
    """What may change the numbers or the speed of a run; what can't be found out is null."""
    return {
        "harness": __version__,
        "commit": commit(),
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "platform": platform.platform(),
        "cpu": cpu_model() or platform.machine() or None,
        "cpu_count": os.cpu_count(),
        "numpy": _numpy(),
        "environment": {
            key: value
            for key, value in sorted(os.environ.items())
            if key in SPEED_VARIABLES or key in THREAD_VARIABLES or key.endswith("_NUM_THREADS")
        },
        "distributions": _distributions(),
    }


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


def _distributions() -> dict[str, str]:
    """Each distribution's version, by name. Each job of a sweep writes it."""
    return dict(_distributions_in(import_folders()))


@lru_cache(maxsize=1)
def _distributions_in(folders: tuple[tuple[str, int], ...]) -> dict[str, str]:
    found = {}
    for distribution in metadata.distributions(path=[folder for folder, _ in folders]):
        about = distribution.metadata  # read once: each look at it parses the file anew
        name = about["Name"]  # None where the metadata is damaged
        if name:
            found[name.lower()] = about["Version"]
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
