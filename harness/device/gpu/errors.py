"""What a GPU can lack, each as one error that says what to do, for whichever backend asks."""

from typing import Protocol

from harness.errors import ConfigError, ResourceError

EXTRAS = 'pip install "gpt2-harness[cuda12]", or [cuda13] for a driver of CUDA 13'
"""What installs the libraries of both backends."""

MIN_CAPABILITY = (7, 0)
"""Of the kernels: they need shuffles with masks and independent threads."""

NO_DRIVER = "there is no NVIDIA driver"
NONE_SEEN = "the driver sees no GPU (CUDA_VISIBLE_DEVICES?)"


class Memory(Protocol):
    """A GPU, as far as `out_of_memory` asks it."""

    name: str

    def free_bytes(self) -> int: ...


def no_gpu(backend: str, reason: str, do: str) -> ResourceError:
    """There is none, or no driver for it. do: how to go on without."""
    return ResourceError(
        f"backend '{backend}' needs an NVIDIA GPU, and there is none",
        slug="no-gpu",
        reason=reason,
        do=do,
    )


def gpu_too_old(backend: str, name: str, capability: tuple[int, int], do: str) -> ResourceError:
    """It is below MIN_CAPABILITY. name: the GPU's. do: how to go on without."""
    return ResourceError(
        f"backend '{backend}' cannot use this GPU: {name}",
        slug="gpu-too-old",
        expected=f"compute capability {_capability(MIN_CAPABILITY)} or later",
        found=_capability(capability),
        do=do,
    )


def precision_needs_newer_gpu(
    precision: str, least: tuple[int, int], name: str, capability: tuple[int, int]
) -> ConfigError:
    """It has no arithmetic for a precision. least: the first capability that has."""
    return ConfigError(
        f"precision={precision} needs compute capability {_capability(least)} or later",
        slug="precision-needs-newer-gpu",
        found=f"{name}, {_capability(capability)}",
        do="precision=fp32",
    )


def out_of_memory(gpu: Memory, nbytes: int) -> ResourceError:
    """The GPU did not give this many bytes."""
    return ResourceError(
        f"{nbytes:,} bytes are wanted on {gpu.name}, and {gpu.free_bytes():,} are free",
        slug="device-memory-too-small",
        do="a smaller batch_size, with gradient_accumulation; recompute=block; or precision=bf16",
    )


def memory_in_capture(nbytes: int) -> ResourceError:
    """A call that is captured asked for this many bytes."""
    return ResourceError(
        "memory was taken while a step was captured",
        slug="capture-took-memory",
        found=f"{nbytes:,} bytes",
        effect="its graph would write to memory that is handed out again",
        do="capture=off",
    )


def _capability(pair: tuple[int, int]) -> str:
    """(9, 0) -> 9.0"""
    return f"{pair[0]}.{pair[1]}"


def dotted(version: int) -> str:
    """12090 -> 12.9"""
    return f"{version // 1000}.{version % 1000 // 10}"
