"""Set the threads of every library that computes from one setting: the configuration's `threads`.

    with using_threads(config.threads, trainer.plan.dispatch.backends) as threads:
        print(threads)                      # 2 of 2 cores

The number is what was asked for. Where nothing was, it is the least that a variable of
THREAD_VARIABLES asks for, and never more than the cores that this process may use. First every BLAS and
OpenMP library that is loaded is limited to it, then each backend is told (the hook `set_threads`), so
that a backend has the last word on the libraries that it calls.
"""

import math
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from harness.errors import ConfigError, PluginError
from harness.files.system import control_groups

if TYPE_CHECKING:
    from harness.plugins.loading import Backend

THREAD_VARIABLES = (
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "GOTO_NUM_THREADS",
    "MKL_NUM_THREADS",
    "BLIS_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",
    "NUMBA_NUM_THREADS",
)
MAX_THREADS = 1024  # more than any library takes; beyond it a number is a mistake

_in_force: int | None = None
"""What the backends were told last. The pools are the process's, and so is this."""


@dataclass(frozen=True)
class Threads:
    """How many threads compute, of how many cores that this process may use, and who said so."""

    count: int
    cores: int
    said_by: str = ""

    def __str__(self) -> str:
        of = f"{self.count} of {self.cores} core{'s' if self.cores > 1 else ''}"
        return f"{of}, by {self.said_by}" if self.said_by else of

    @property
    def warning(self) -> str | None:
        """What is wrong with the number, and what to type; None if nothing is."""
        if self.count > self.cores:
            return (
                f"{self.count} threads on {self.cores} cores: they wait for each other\n"
                f"threads={self.cores}, or leave it out"
            )
        if self.count < self.cores and self.said_by.partition("=")[0] in THREAD_VARIABLES:
            idle = self.cores - self.count
            return f"{self.said_by} leaves {idle} of {self.cores} cores idle\nthreads={self.cores}"
        return None


def threads_for(count: int | None) -> Threads:
    """The threads that a setting means here and now. count: as configured; None: nothing was said."""
    cores = cores_allowed()
    if count is not None:
        if not 1 <= count <= MAX_THREADS:
            raise ConfigError(
                f"threads={count} is no number of threads",
                slug="threads-out-of-range",
                expected=f"1 to {MAX_THREADS:,}, or null for all cores that this process may use",
            )
        return Threads(count, cores, f"threads={count}")
    asked = asked_by_environment()
    least = min(asked, key=lambda name: asked[name], default="")
    if least and asked[least] < cores:
        return Threads(asked[least], cores, f"{least}={asked[least]}")
    return Threads(cores, cores)


def asked_by_environment(environment: Mapping[str, str] | None = None) -> dict[str, int]:
    """The thread counts that variables ask for; what is no number of 1 or more asks for nothing."""
    environment = os.environ if environment is None else environment
    asked = {}
    for name in THREAD_VARIABLES:
        first = environment.get(name, "").partition(",")[0].strip()  # OpenMP's may be a list
        if first.isascii() and first.isdigit() and len(first) < 10 and int(first) > 0:
            asked[name] = int(first)
    return asked


def use_threads(count: int | None, backends: Iterable["Backend"] = ()) -> int:
    """Compute with this many threads from now on; returns their number. Once, before the first step."""
    global _in_force
    import threadpoolctl  # type: ignore[import-untyped]

    threads = threads_for(count)
    threadpoolctl.threadpool_limits(threads.count)
    for backend in backends:
        _tell(backend, threads.count)
    _in_force = threads.count
    return threads.count


@contextmanager
def using_threads(count: int | None, backends: Iterable["Backend"] = ()) -> Iterator[Threads]:
    """The same within a block. Afterwards libraries and backends have the threads they had before."""
    global _in_force
    import threadpoolctl

    threads, before = threads_for(count), _in_force
    limits = threadpoolctl.threadpool_limits(threads.count)
    told = []
    try:
        for backend in backends:
            _tell(backend, threads.count)
            told.append(backend)
        _in_force = threads.count
        yield threads
    finally:
        _in_force = before
        limits.restore_original_limits()
        for backend in told:
            _tell(backend, before or threads_for(None).count)


def _tell(backend: "Backend", count: int) -> None:
    set_threads = backend.functions.get("set_threads")
    if set_threads is None:
        return
    try:
        set_threads(count)
    except Exception as error:
        raise PluginError(
            f"backend '{backend.name}' ({backend.source}) cannot compute with {count} threads",
            slug="threads-not-set",
            reason=f"{type(error).__name__}: {error}",
            do=f"threads={cores_allowed()}, or another backend",
        ) from error


def cores_allowed() -> int:
    """The cores that this process may use: by its affinity, and by the quota of a container or a job."""
    if hasattr(os, "sched_getaffinity"):
        cores = len(os.sched_getaffinity(0))
    else:
        cores = os.cpu_count() or 1
    quotas = [
        quota for folder, version in control_groups("cpu") for quota in _quota_in(folder, version)
    ]
    return max(1, min([cores, *(math.ceil(quota) for quota in quotas)]))


def _quota_in(folder: Path, version: int) -> list[float]:
    """Cores' worth of time that one control group may use; nothing where none is set."""
    try:
        if version == 2:
            quota, period = (folder / "cpu.max").read_text().split()
        else:
            quota = (folder / "cpu.cfs_quota_us").read_text()
            period = (folder / "cpu.cfs_period_us").read_text()
        cores = int(quota) / int(period)
    except (OSError, ValueError, ZeroDivisionError):  # no such group, or its limit is the word max
        return []
    return [cores] if cores > 0 else []
