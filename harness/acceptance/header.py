"""The header of a record: the machine, the versions and the sources."""

import platform
from datetime import datetime
from importlib import metadata
from typing import Any

from harness import ROOT, __version__
from harness.acceptance import record
from harness.acceptance.part import Request
from harness.files.system import cpu_model
from harness.machine import nvidia_driver as driver
from harness.machine.provenance import commit
from harness.machine.threads import cores_allowed

PACKAGES = (
    "numpy", "ml_dtypes", "numba", "numba-cuda", "cupy-cuda12x", "cupy-cuda13x", "nvmath-python",
    "nvidia-cudnn-frontend", "nvidia-cudnn-cu12", "nvidia-cudnn-cu13", "nvidia-cublas-cu12",
    "nvidia-cublas", "torch", "triton",
)  # fmt: skip


def header_of(
    request: Request, unavailable: dict[str, str], gpu: driver.Gpu | None, on: str, when: datetime
) -> dict[str, Any]:
    """A record before its first part."""
    return {
        "format": record.FORMAT,
        "date": when.date().isoformat(),
        "begun": when.isoformat(timespec="seconds"),
        "device": gpu.slug if gpu else "cuda-on-the-cpu",
        "on": on,
        "machine": {
            **(gpu.record() if gpu else {"name": record.ON_CPU}),
            "cpu": cpu_model(),
            "cores": cores_allowed(),
            "system": f"{platform.system()} {platform.machine()}",
            "python": platform.python_version(),
            "libraries": {name: found for name in PACKAGES if (found := _version(name))},
        },
        "harness": __version__,
        "commit": commit(*record.SOURCES),
        "sources": record.sources_digest(ROOT),
        "asked": request.record(),
        "absent": unavailable,
        "seconds": 0.0,
        "budget_s": 0.0,
        "goals": [],
        "parts": {},
    }


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None
