"""What the backends of a GPU share: its errors, copies through pinned memory, captures.

Nothing here asks a GPU for anything, or imports a library that does.
"""

from harness.device.gpu.capture import no_garbage_collected, nothing
from harness.device.gpu.errors import (
    EXTRAS,
    MIN_CAPABILITY,
    NO_DRIVER,
    NONE_SEEN,
    dotted,
    gpu_too_old,
    memory_in_capture,
    no_gpu,
    out_of_memory,
    precision_needs_newer_gpu,
)
from harness.device.gpu.pinned_copies import PINNED_BYTES, SLOTS, PinnedCopies, Slot

__all__ = [
    "EXTRAS",
    "MIN_CAPABILITY",
    "NONE_SEEN",
    "NO_DRIVER",
    "PINNED_BYTES",
    "SLOTS",
    "PinnedCopies",
    "Slot",
    "dotted",
    "gpu_too_old",
    "memory_in_capture",
    "no_garbage_collected",
    "no_gpu",
    "nothing",
    "out_of_memory",
    "precision_needs_newer_gpu",
]
