"""Describe the matrix library: its name, version, the kernels it chose, and its threads."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

NAMES = {"openblas": "OpenBLAS", "mkl": "MKL", "blis": "BLIS", "flexiblas": "FlexiBLAS"}
OWNERS = {"numpy": "NumPy", "scipy": "SciPy"}


def libraries() -> list[dict[str, Any]]:
    """Every BLAS that is loaded, as threadpoolctl describes it."""
    import threadpoolctl  # type: ignore[import-untyped]

    return [info for info in threadpoolctl.threadpool_info() if info["user_api"] == "blas"]


def library_of(package: str) -> dict[str, Any]:
    """The BLAS of a package (`numpy`, `scipy`): its file lies in a folder named after it.

    The first that is loaded where none does, as in a distribution that shares one; empty where
    threadpoolctl knows of none.
    """
    found = sorted(libraries(), key=lambda info: not belongs_to(info, package))
    return found[0] if found else {}


def describe(package: str) -> str:
    """NumPy's OpenBLAS 0.3.31.188.0, kernels Haswell, 2 threads"""
    found = library_of(package)
    text = described(found) if found else f"{_built_for()}, kernels and threads of its own choice"
    return f"{OWNERS.get(package, package)}'s {text}"


def described(library: Mapping[str, Any]) -> str:
    """A library as threadpoolctl gives it, in words."""
    name = library.get("internal_api", "unknown BLAS")
    parts = [f"{NAMES.get(name, name)} {library.get('version') or ''}".strip()]
    if library.get("architecture"):
        parts.append(f"kernels {library['architecture']}")
    count = library.get("num_threads")
    if count is not None:
        parts.append(f"{count} thread{'s' if count > 1 else ''}")
    return ", ".join(parts)


def belongs_to(library: Mapping[str, Any], package: str) -> bool:
    folders = Path(str(library["filepath"])).parts
    return any(part == package or part.startswith(f"{package}.") for part in folders)


def _built_for() -> str:
    import numpy as np

    built = np.show_config(mode="dicts") or {}
    return str(built.get("Build Dependencies", {}).get("blas", {}).get("name", "unknown BLAS"))
