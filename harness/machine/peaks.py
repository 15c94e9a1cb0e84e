"""Measure what this machine can do: copy bandwidth and matmul speed, once, and remember them.

A share of a data sheet's peak says little, least of all on a shared virtual machine. So percentages
refer to what NumPy reached here: a large copy, and the best of two matrix products.
"""

import json
import os
import platform
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import psutil  # type: ignore[import-untyped]
import threadpoolctl  # type: ignore[import-untyped]

from harness.machine.processor import Machine, last_level_cache_bytes, load_average, this_machine

SQUARE = 2048  # rows of the square product: 17 GFLOP, long beside the cost of starting threads
LAYER_NIO = (256, 768, 3072)  # GPT-2 124M's first feed-forward layer at B=4, T=64
BUDGET_S = 0.6  # for each number
FORMAT = 1


@dataclass(frozen=True)
class Rates:
    """The best of several rounds, in bytes read and written per second and in float32 FLOP/s.

    cached_copy: of two arrays that fill a quarter of the last-level cache. layer: a product of the
    shape of a layer of GPT-2 124M.
    """

    copy_bytes_per_s: float
    cached_copy_bytes_per_s: float
    square_flops_per_s: float
    layer_flops_per_s: float

    @property
    def matmul_flops_per_s(self) -> float:
        return max(self.square_flops_per_s, self.layer_flops_per_s)


@dataclass(frozen=True)
class Peaks:
    """What one machine reached, and when. load: the programs that wanted to run before we began."""

    machine: Machine
    last_level_cache_bytes: int
    one_thread: Rates
    all_threads: Rates
    measured_at: str
    load: float

    @property
    def best(self) -> Rates:
        """The peaks that percentages refer to: each rate with one thread or all, whichever is higher.

        On a shared machine two threads may be slower than one.
        """
        one, every = asdict(self.one_thread), asdict(self.all_threads)
        return Rates(**{name: max(one[name], every[name]) for name in one})

    @property
    def copy_bytes_per_s(self) -> float:
        return self.best.copy_bytes_per_s

    @property
    def matmul_flops_per_s(self) -> float:
        return self.best.matmul_flops_per_s

    @property
    def from_memory_above_bytes(self) -> int:
        """Below this a case may stay in the cache, and be faster than memory allows."""
        return 4 * self.last_level_cache_bytes

    def __str__(self) -> str:
        rows = [
            f"measured {self.measured_at} on {self.machine}; load before {self.load:.1f}",
            f"last-level cache {self.last_level_cache_bytes / 2**20:.0f} MiB",
        ]
        for label, rates in (("one thread", self.one_thread), ("all threads", self.all_threads)):
            rows.append(
                f"{label:<12} copy {rates.copy_bytes_per_s / 1e9:.1f} GB/s"
                f" (in cache {rates.cached_copy_bytes_per_s / 1e9:.1f}),"
                f" matmul {rates.square_flops_per_s / 1e9:.0f} GFLOP/s"
                f" (a layer {rates.layer_flops_per_s / 1e9:.0f})"
            )
        return "\n".join(rows)


def peaks(folder: Path | None = None, *, again: bool = False) -> Peaks:
    """This machine's peaks: from the cache folder, or measured now (some seconds) and kept there.

    A cached file that is damaged, or of another machine, is measured again.
    """
    machine = this_machine()
    found = None if again else _read(_file(folder, machine), machine)
    return found or _keep(_file(folder, machine), measure_peaks(machine))


def cached_peaks(folder: Path | None = None) -> Peaks | None:
    """This machine's peaks if they have been measured; nothing is measured now."""
    machine = this_machine()
    return _read(_file(folder, machine), machine)


def _file(folder: Path | None, machine: Machine) -> Path:
    return (folder or cache_folder()) / f"peaks-{machine.key}.json"


def cache_folder() -> Path:
    """Where measured peaks are kept, by the custom of the system."""
    if platform.system() == "Darwin":
        base = Path.home() / "Library" / "Caches"
    else:
        base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return base / "gpt2-harness"


def _read(file: Path, machine: Machine) -> Peaks | None:
    try:
        record = json.loads(file.read_text())
        found = from_record(record)
    except (OSError, ValueError, TypeError, KeyError):
        return None
    return found if found.machine == machine else None


def from_record(record: dict[str, Any]) -> Peaks:
    """Peaks from their JSON. Raises KeyError, TypeError or ValueError where it does not hold them."""
    if record["format"] != FORMAT:
        raise ValueError(f"format {record['format']}")
    rates = {name: Rates(**record[name]) for name in ("one_thread", "all_threads")}
    if not all(value > 0 for found in rates.values() for value in asdict(found).values()):
        raise ValueError("a rate is not positive")
    return Peaks(
        machine=Machine(**record["machine"]),
        last_level_cache_bytes=int(record["last_level_cache_bytes"]),
        measured_at=str(record["measured_at"]),
        load=float(record["load"]),
        **rates,
    )


def as_record(found: Peaks) -> dict[str, Any]:
    """Peaks as JSON."""
    return {"format": FORMAT, **asdict(found)}


def _keep(file: Path, found: Peaks) -> Peaks:
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        whole = file.with_suffix(f".{os.getpid()}")
        whole.write_text(json.dumps(as_record(found), indent=1) + "\n")
        whole.replace(file)
    except OSError as error:
        # A read-only home costs some seconds at the next run, and nothing else.
        print(f"measured peaks are not kept: {error}", file=sys.stderr)
    return found


def measure_peaks(machine: Machine, budget_s: float = BUDGET_S) -> Peaks:
    """Measure now; about ten times budget_s."""
    cache, load = last_level_cache_bytes(), load_average()
    rates: dict[str, Rates] = {}
    for label, threads in (("one_thread", 1), ("all_threads", machine.threads)):
        if label == "all_threads" and threads == 1:
            rates[label] = rates["one_thread"]
            continue
        with threadpoolctl.threadpool_limits(threads, user_api="blas"):
            rates[label] = Rates(
                copy_bytes_per_s=copy_rate(_large_array_bytes(cache), threads, budget_s),
                cached_copy_bytes_per_s=copy_rate(cache // 8, threads, budget_s),
                square_flops_per_s=matmul_rate(SQUARE, SQUARE, SQUARE, budget_s),
                layer_flops_per_s=matmul_rate(*LAYER_NIO, budget_s),
            )
    now = datetime.now(UTC).isoformat(timespec="seconds")
    return Peaks(machine, cache, measured_at=now, load=load, **rates)


def _large_array_bytes(cache_bytes: int) -> int:
    """For each of two arrays: eight caches together at least, an eighth of free memory at most."""
    return min(max(4 * cache_bytes, 128 << 20), psutil.virtual_memory().available // 8)


def copy_rate(array_bytes: int, threads: int, budget_s: float) -> float:
    """Bytes per second, read and written, of copying one array of float32 to another."""
    source = np.ones(array_bytes // 4, np.float32)
    target = np.zeros_like(source)
    nbytes = 2 * source.nbytes
    if threads == 1:
        return nbytes / _best_s(lambda: np.copyto(target, source), budget_s)
    parts = list(zip(np.array_split(target, threads), np.array_split(source, threads), strict=True))
    with ThreadPoolExecutor(threads) as pool:

        def copy() -> None:
            for _ in pool.map(lambda part: np.copyto(*part), parts):
                pass

        return nbytes / _best_s(copy, budget_s)


def matmul_rate(N: int, I: int, O: int, budget_s: float) -> float:
    """FLOP/s of out_NO = x_NI · weight_OIᵀ in float32."""
    x_NI = np.ones((N, I), np.float32)
    weight_OI = np.ones((O, I), np.float32)
    out_NO = np.zeros((N, O), np.float32)
    return 2 * N * I * O / _best_s(lambda: np.matmul(x_NI, weight_OI.T, out=out_NO), budget_s)


def _best_s(call: Callable[[], object], budget_s: float) -> float:
    """The shortest of the rounds that fit the budget, three at least, after one that warms up.

    A peak is what the machine can do, so here the best counts, not the median.
    """
    call()
    best, spent, rounds = float("inf"), 0.0, 0
    while rounds < 3 or spent < budget_s:
        start = time.perf_counter()
        call()
        elapsed = time.perf_counter() - start
        best, spent, rounds = min(best, elapsed), spent + elapsed, rounds + 1
    return best
