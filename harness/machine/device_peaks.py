"""What a device reaches now, by its own clock: the peaks of a roofline in one precision.

A backend's hook measure_rates says it: a copy larger than the caches, and matrix products in float32,
TF32 and bf16. It is measured in every process: a card's clock depends on what else runs on it.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from harness.machine.peaks import Peaks, Rates
from harness.plugins.loading import Backend

UNKNOWN_CACHE_BYTES = 50 << 20
"""Of a device that does not tell: the second cache of an H100. A case below four of them is labelled."""

FORMAT = 1


@dataclass(frozen=True)
class DevicePeaks:
    """The peaks of one device in one precision. Used wherever a Peaks is.

    rates: as the hook gives them. cache_bytes: of the device's last cache.
    """

    backend: str
    device: str
    precision: str
    rates: Mapping[str, float]
    cache_bytes: int

    @property
    def best(self) -> Rates:
        copy, matmul = self.rates["copy_bytes_per_s"], self.rates[f"{self.precision}_flops_per_s"]
        cached = self.rates.get("cached_copy_bytes_per_s", copy)
        return Rates(copy, cached, matmul, matmul)

    @property
    def copy_bytes_per_s(self) -> float:
        return self.best.copy_bytes_per_s

    @property
    def matmul_flops_per_s(self) -> float:
        return self.best.matmul_flops_per_s

    @property
    def from_memory_above_bytes(self) -> int:
        """Below this a case may stay in the cache, and be faster than memory allows."""
        return 4 * self.cache_bytes

    def __str__(self) -> str:
        flops = ", ".join(
            f"{name.removesuffix('_flops_per_s')} {value / 1e12:.1f}"
            for name, value in self.rates.items()
            if name.endswith("_flops_per_s")
        )
        return (
            f"{self.device} by {self.backend}, now: copy {self.copy_bytes_per_s / 1e9:.0f} GB/s,"
            f" matmul {flops} TFLOP/s; per cent of {self.precision};"
            f" cache {self.cache_bytes / 2**20:.0f} MiB"
        )


AnyPeaks = Peaks | DevicePeaks


def device_peaks(backend: Backend, precision: str = "fp32") -> DevicePeaks | None:
    """Measure a backend's device; None for the host's, and for one that has no measure_rates."""
    if backend.device == "host" or "measure_rates" not in backend:
        return None
    backend.open_device()
    rates = {name: float(value) for name, value in backend.functions["measure_rates"]().items()}
    cache_bytes = int(rates.pop("cache_bytes", UNKNOWN_CACHE_BYTES))
    return DevicePeaks(backend.name, backend.device, precision, rates, cache_bytes)


def best_of(found: Mapping[str, DevicePeaks]) -> dict[str, DevicePeaks]:
    """Backend -> rates, where several measured one device: each then has the best that any reached.

    Without this, a backend with its own matrix kernels would be compared with those alone.
    """
    best: dict[str, DevicePeaks] = {}
    for name, peaks in found.items():
        same = [other for other in found.values() if other.device == peaks.device]
        rates = {
            key: max(other.rates[key] for other in same if key in other.rates)
            for other in same
            for key in other.rates
        }
        backends = "+".join(sorted({other.backend for other in same}))
        cache_bytes = max(
            (p.cache_bytes for p in same if p.cache_bytes != UNKNOWN_CACHE_BYTES),
            default=UNKNOWN_CACHE_BYTES,
        )
        best[name] = DevicePeaks(backends, peaks.device, peaks.precision, rates, cache_bytes)
    return best


def as_record(peaks: DevicePeaks) -> dict[str, Any]:
    return {"format": FORMAT, **asdict(peaks)}
