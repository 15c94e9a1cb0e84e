"""Describe the machine that a number was measured on: processor, BLAS, threads, cache."""

import hashlib
import json
import os
import platform
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from harness.files.system import cpu_model, sysctl
from harness.machine.blas import library_of
from harness.machine.threads import cores_allowed

CPU_FOLDER = Path("/sys/devices/system/cpu/cpu0/cache")
UNKNOWN_CACHE_BYTES = 32 << 20
"""Where the system does not tell: large enough that few cases claim to come from memory."""

BYTES_PER = {"K": 1 << 10, "M": 1 << 20, "G": 1 << 30}


@dataclass(frozen=True)
class Machine:
    """What measured peaks depend on; another value of any field is another machine.

    blas_kernel: the kernels that the BLAS library chose for this processor. openblas_coretype: the
    environment variable that overrides that choice, as it is set. threads: of the BLAS library.
    """

    cpu: str
    cores: int
    system: str
    numpy: str
    blas: str
    blas_kernel: str
    openblas_coretype: str
    threads: int

    @property
    def key(self) -> str:
        """A short name for a file: the same for the same machine only."""
        text = json.dumps(asdict(self), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def __str__(self) -> str:
        chosen = self.openblas_coretype or "not set"
        return (
            f"{self.cpu}, {self.cores} cores, {self.system}; NumPy {self.numpy}; {self.blas}, kernels"
            f" {self.blas_kernel} (OPENBLAS_CORETYPE {chosen}), threads {self.threads}"
        )


def this_machine() -> Machine:
    """The machine as it is now, with the thread count that the BLAS library has now."""
    library = library_of("numpy")
    version = library.get("version")
    return Machine(
        cpu=cpu_model(),
        cores=cores_allowed(),
        system=f"{platform.system()} {platform.machine()}",
        numpy=np.__version__,
        blas=f"{library.get('internal_api', 'unknown BLAS')} {version or ''}".strip(),
        blas_kernel=str(library.get("architecture", "unknown")),
        openblas_coretype=os.environ.get("OPENBLAS_CORETYPE", ""),
        threads=int(library.get("num_threads", 1)),
    )


def load_average() -> float:
    """The programs that wanted to run, over the last minute; 0 where the system does not count."""
    return os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0


def last_level_cache_bytes(folder: Path = CPU_FOLDER) -> int:
    """The size of the largest cache that core 0 sees; a guess where the system does not tell."""
    sizes = [_size(file) for file in sorted(folder.glob("index*/size"))]
    for name in ("hw.l3cachesize", "hw.l2cachesize"):
        if not any(sizes):
            sizes = [int(sysctl(name) or 0)]
    return max(sizes, default=0) or UNKNOWN_CACHE_BYTES


def _size(file: Path) -> int:
    try:
        text = file.read_text().strip()
        return int(text.rstrip("KMG")) * BYTES_PER.get(text[-1:], 1)
    except (OSError, ValueError):
        return 0
