"""What the system's own files say: the processor's name, control groups, the folders of imports."""

import os
import platform
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

CGROUPS = Path("/sys/fs/cgroup")


def cpu_model() -> str:
    """The processor's name, as the system gives it."""
    try:
        lines = Path("/proc/cpuinfo").read_text("utf-8", "replace").splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return next(iter(names), None) or sysctl("machdep.cpu.brand_string") or platform.processor()


def sysctl(name: str) -> str:
    """A value of macOS's own list; empty on another system, or where it has none."""
    if platform.system() != "Darwin":
        return ""
    result = subprocess.run(["sysctl", "-n", name], capture_output=True, text=True, check=False)
    return result.stdout.strip()


def control_groups(controller: str) -> Iterator[tuple[Path, int]]:
    """(folder, version 1 or 2) of each control group that this process is in, and of those around it.

    controller: as version 1 calls it: "cpu", "memory". Nothing where the system has no control groups.
    """
    try:
        lines = Path("/proc/self/cgroup").read_text().splitlines()
    except OSError:
        return
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers and controller not in controllers.split(","):
            continue
        root = CGROUPS / controllers if controllers else CGROUPS
        group = root / path.lstrip("/")
        for folder in (group, *group.parents):
            if not folder.is_relative_to(root):
                break
            yield folder, 1 if controllers else 2


def import_folders() -> tuple[tuple[str, int], ...]:
    """Each entry of `sys.path`, and when it last changed in ns: as a distribution came or went.

    What is read of installed distributions is kept by this, since a hundred files are read for it.
    """
    return tuple((folder, _changed_ns(folder)) for folder in sys.path)


def _changed_ns(folder: str) -> int:
    try:
        return os.stat(folder or ".").st_mtime_ns
    except OSError:
        return 0
