"""Compare a time with the least that this machine could take: the roofline.

    floor = max(bytes / copy bandwidth, FLOPs / matmul speed)        per cent of roofline = floor / time

Bytes and FLOPs are the op's own count, never the plugin's, so a kernel cannot flatter itself. A case
whose bytes are below four last-level caches may find them there: it is labelled, since only above that
is it impossible to be faster than the bandwidth floor.
Source: Williams, Waterman and Patterson 2009, doi:10.1145/1498765.1498785.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from harness.contract import Argument, Half
from harness.contract.precision import dtype_under
from harness.machine.device_peaks import AnyPeaks


@dataclass(frozen=True)
class Work:
    """What a half-op must move and compute, whoever does it."""

    moved_bytes: int
    flops: int


@dataclass(frozen=True)
class Floor:
    """The least time that a machine could take.

    bound: `memory` or `compute`, whichever takes longer. in_cache: the bytes may never leave the
    cache, so that a time below the floor is possible.
    """

    seconds: float
    bound: str
    in_cache: bool


@dataclass(frozen=True)
class Score:
    """A time as rates and percentages. They refer to measured peaks, `best`: the host's or a device's.

    cached_copy_percent: of the copy bandwidth within the cache; None for a case from memory.
    """

    bytes_per_s: float
    flops_per_s: float
    copy_percent: float
    cached_copy_percent: float | None
    matmul_percent: float
    roofline_percent: float
    bound: str
    in_cache: bool


def work_of(half: Half, dims: Mapping[str, int], policy: str = "fp32") -> Work:
    """The bytes and FLOPs of a call with every optional buffer given, without `accumulate`."""

    def itemsize(argument: Argument) -> int:
        assert argument.role is not None
        return dtype_under(policy, argument.role.dtype).itemsize

    return Work(half.count_bytes(dims, itemsize), half.count_flops(dims))


def floor_of(work: Work, peaks: AnyPeaks) -> Floor:
    """The least time that moving and computing this much takes."""
    rates = peaks.best
    memory_s = work.moved_bytes / rates.copy_bytes_per_s
    compute_s = work.flops / rates.matmul_flops_per_s
    return Floor(
        seconds=max(memory_s, compute_s),
        bound="memory" if memory_s >= compute_s else "compute",
        in_cache=work.moved_bytes < peaks.from_memory_above_bytes,
    )


def score(work: Work, seconds: float, peaks: AnyPeaks) -> Score:
    """The rates and percentages of a call that took this long."""
    floor = floor_of(work, peaks)
    rates = peaks.best
    bytes_per_s, flops_per_s = work.moved_bytes / seconds, work.flops / seconds
    cached = 100 * bytes_per_s / rates.cached_copy_bytes_per_s if floor.in_cache else None
    return Score(
        bytes_per_s=bytes_per_s,
        flops_per_s=flops_per_s,
        copy_percent=100 * bytes_per_s / rates.copy_bytes_per_s,
        cached_copy_percent=cached,
        matmul_percent=100 * flops_per_s / rates.matmul_flops_per_s,
        roofline_percent=100 * floor.seconds / seconds,
        bound=floor.bound,
        in_cache=floor.in_cache,
    )
