"""Add up what a run needs of the host's memory before it takes any: too little is an error, not a kill.

Memory that was taken and never touched does not count as used, so what is available is asked once, at
the start, and every need is held against that.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import psutil  # type: ignore[import-untyped]

from harness.errors import ResourceError
from harness.files.system import control_groups
from harness.planning.plan import Plan, Version

LISTED = 4  # of the largest tensors
V2_NAMES = ("memory.max", "memory.current")
V1_NAMES = ("memory.limit_in_bytes", "memory.usage_in_bytes")


def available_bytes() -> int:
    """What the machine has left, or the control groups of a container or a job, if that is less."""
    return min(psutil.virtual_memory().available, *_left_in_cgroups(), 2**62)


@dataclass
class MemoryNeed:
    """The needs of one run.

    ways_out: from (needed, available) to what the user may type. where: whose memory it is.
    """

    ways_out: Callable[[int, int], list[str]]
    available: int = field(default_factory=lambda: available_bytes())
    where: str = "host"
    needs: list[tuple[str, int]] = field(default_factory=list)

    @property
    def nbytes(self) -> int:
        return sum(nbytes for _, nbytes in self.needs)

    def add(self, what: str, nbytes: int) -> None:
        self.needs.append((what, nbytes))

    def check(self, plan: Plan | None = None) -> None:
        """Raise ResourceError where more is needed than there is.

        plan: whose largest tensors the error names.
        """
        if self.nbytes <= self.available:
            return
        raise ResourceError(
            f"this run needs {readable(self.nbytes)} of memory{of_device(self.where)}, and there "
            f"are {readable(self.available)}",
            slug="memory-too-small",
            needed="\n".join(f"{readable(n):>10}  {what}" for what, n in self.needs),
            largest="\n".join(largest_tensors(plan, self.where)) if plan else None,
            effect="nothing was allocated",
            do="\n".join(self.ways_out(self.nbytes, self.available)),
        )


def host_bytes(plan: Plan) -> int:
    """What an executor takes on the host beside the parameters' arenas: state included."""
    return plan.arena_bytes.get("host", 0) + lasting_bytes(plan, "host")


def lasting_bytes(plan: Plan, device: str) -> int:
    """What an executor takes on a device beside the parameters' arenas and its own.

    Inputs, state, copies of parameters, gradients that are not made at home; and on the host what copies
    between devices pass through.
    """
    own = set(plan.gradients.values())
    total = plan.staging_bytes if device == "host" else 0
    for version in plan.versions.values():
        at_home = (version.kind, version.device) == ("parameter", plan.home)
        if version.device == device and version.kind != "activation" and not at_home:
            total += 0 if version in own else version.nbytes
    return total


def of_device(name: str) -> str:
    """`` for the host, ` on cuda` for another."""
    return "" if name == "host" else f" on {name}"


def largest_tensors(plan: Plan, device: str = "host") -> list[str]:
    """A line for each of the largest tensors on a device, the largest first."""
    found: list[Version] = [v for v in plan.versions.values() if v.device == device]
    found.sort(key=lambda v: -v.nbytes)
    return [
        f"{readable(v.nbytes):>10}  {v.tensor.name} {v.tensor.shape} {v.dtype.name}"
        for v in found[:LISTED]
    ]


def readable(nbytes: int) -> str:
    """12.3 GiB"""
    for unit, scale in (("TiB", 2**40), ("GiB", 2**30)):
        if nbytes >= scale:
            return f"{nbytes / scale:,.1f} {unit}"
    return f"{nbytes / 2**20:,.1f} MiB"


def _left_in_cgroups() -> list[int]:
    """What is left in each control group that this process is in; nothing where there are none."""
    return [
        left
        for folder, version in control_groups("memory")
        for left in _left_in(folder, *(V1_NAMES if version == 1 else V2_NAMES))
    ]


def _left_in(folder: Path, limit_name: str, used_name: str) -> list[int]:
    try:
        limit = int((folder / limit_name).read_text())
        used = int((folder / used_name).read_text())
        pairs = (line.split() for line in (folder / "memory.stat").read_text().splitlines())
        # Files that were read and are not needed count as used, and go when memory is wanted.
        cached = {name: int(value) for name, value in pairs}.get("inactive_file", 0)
    except (OSError, ValueError):  # no such group, or its limit is the word max
        return []
    return [max(0, limit - used + cached)]
