"""Say what a run asks of a device: memory, copies, an order of execution.

The hooks below are implemented once by the core for `host` (NumPy memory), and by the plugin of any
other device. One arena is taken per device; every tensor of the plan is a view of it.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Protocol

import numpy as np

from harness.contract import Shape, hookspec

ALIGNMENT = 128
"""Bytes. Every buffer begins at a multiple of it: a cache line pair, and a GPU's widest access."""


def aligned(nbytes: int) -> int:
    """nbytes, rounded up to the alignment of every buffer."""
    return -(-nbytes // ALIGNMENT) * ALIGNMENT


@hookspec
def empty(nbytes: int) -> Any:
    """Memory of nbytes, uninitialised, beginning at a multiple of 128 bytes."""


@hookspec
def view(memory: Any, offset: int, shape: Shape, dtype: Any) -> Any:
    """A C-contiguous array on memory[offset:], of the backend's own array kind; no copy."""


@hookspec
def adapt(buffer: Any) -> Any:
    """Another backend's array on the same device, as this backend's own kind; no copy."""


@hookspec
def from_host(buffer: Any, array: Any) -> None:
    """Copy a NumPy array of the same shape and dtype into a device buffer."""


@hookspec
def to_host(array: Any, buffer: Any) -> None:
    """Copy a device buffer into a NumPy array of the same shape and dtype, and wait for it."""


@hookspec
def zero(buffer: Any) -> None:
    """Fill a buffer with zeros."""


@hookspec
def synchronize() -> None:
    """Wait until everything that was asked of the device is done."""


@hookspec(firstresult=True)
def capture(calls: Sequence[Callable[[], None]]) -> Callable[[], None] | None:
    """Record calls into one that replays them, or None where the device cannot.

    The calls are recorded and not run. Addresses and scalars are those of the recording: what changes
    from one replay to the next stands in buffers. No call may wait, copy to or from the host, or take
    memory. Only calls of backends that state `capturable = True` are recorded.
    """


@hookspec
def begin_read(buffer: Any) -> Callable[[Any], None]:  # type: ignore[empty-body]
    """Begin to copy a device buffer to the host; the function returned waits, and fills an array.

    What the buffer holds at this point of the device's order is what is read, whatever is asked of the
    device after it. Without this hook a run reads with to_host, and waits.
    """


@hookspec
def free_bytes() -> int:  # type: ignore[empty-body]
    """Bytes of the device's memory that may yet be taken; asked before anything large is."""


@hookspec
def configure(options: Mapping[str, str]) -> None:
    """Take the backend's own settings, `cupy.attention=flash`; once, before anything is computed.

    options: a value for each name of the module's `options`, one of those that it lists there.
    """


@hookspec
def check_precision(precision: str) -> None:
    """Raise ConfigError where the device that is there has no arithmetic for a precision.

    Asked for each precision of a run, before memory is taken.
    """


@hookspec
def device_seconds(call: Callable[[], None]) -> float:  # type: ignore[empty-body]
    """Seconds that the device takes for what a call asks of it, by the device's own clock."""


@hookspec
def measure_rates() -> Mapping[str, float]:  # type: ignore[empty-body]
    """What the device reaches now: `copy_bytes_per_s` of a copy larger than its caches (read and
    written), and `fp32_flops_per_s`, `tf32_flops_per_s`, `bf16_flops_per_s` of a large matrix product.
    """


@hookspec
def set_threads(count: int) -> None:
    """Compute with this many threads from now on. Called once, before the first step."""


@hookspec
def describe_libraries() -> str:  # type: ignore[empty-body]
    """What the backend computes with, for the run's header: libraries, kernel type, threads."""


@hookspec
def compile_seconds() -> float:  # type: ignore[empty-body]
    """Seconds that this process has spent compiling kernels so far; none for what was kept on disk."""


@hookspec
def compile_ahead(  # type: ignore[empty-body]
    calls: Sequence[tuple[str, Sequence[Any]]],
) -> Iterator[tuple[int, int]]:
    """Compile what these calls need and what is not on disk yet, and keep it there.

    calls: (hook, arguments) of each call of a run; of a buffer stand its `shape` and `dtype` alone.
    Yields (done, all) before the first kernel and after each; nothing where there is nothing to do.
    It may be closed on the way. What is not compiled here is compiled when it is first called.
    """


@hookspec
def scratch_bytes(  # type: ignore[empty-body]
    op: str, dims: Mapping[str, int], precision: str, most: int
) -> int:
    """Bytes of memory that a half-op needs in between, at these sizes; the plan places them.

    op: the hook's name. dims: letter -> size. precision: of the op: fp32, tf32 or bf16. most: what an op
    that can work in pieces should keep to.
    """


@hookspec
def lend_scratch(memory: Any) -> None:
    """Use this memory for what is needed in between, until the next call; None: memory of your own.

    memory: bytes of the device, a view of its arena; at least scratch_bytes for the call that follows.
    """


@hookspec
def wrap_op(op: str, backend: str, call: Callable[..., None]) -> Callable[..., None] | None:
    """Replace a half-op's function as it is bound, or None to leave it.

    op: the hook's name, `layernorm_forward`. Called once for each distinct half-op of a plan, before
    the first step; profilers and tracers are plugins of this hook and cost nothing when absent.
    """


REQUIRED = ("empty", "view", "from_host", "to_host", "zero", "synchronize")
OPTIONAL = (
    "adapt",
    "capture",
    "begin_read",
    "free_bytes",
    "configure",
    "check_precision",
    "device_seconds",
    "measure_rates",
    "set_threads",
    "describe_libraries",
    "compile_seconds",
    "compile_ahead",
    "scratch_bytes",
    "lend_scratch",
    "wrap_op",
)
HOOKS = REQUIRED + OPTIONAL


class Device(Protocol):
    """The device hooks as one object; what they do is said at the specifications above."""

    name: str

    def empty(self, nbytes: int) -> Any: ...
    def view(self, memory: Any, offset: int, shape: Shape, dtype: Any) -> Any: ...
    def from_host(self, buffer: Any, array: Any) -> None: ...
    def to_host(self, array: Any, buffer: Any) -> None: ...
    def zero(self, buffer: Any) -> None: ...
    def synchronize(self) -> None: ...


class Host:
    """The CPU's memory, as NumPy arrays."""

    name = "host"

    def empty(self, nbytes: int) -> np.ndarray:
        memory = np.empty(nbytes + ALIGNMENT, np.uint8)
        start = -memory.ctypes.data % ALIGNMENT
        return memory[start : start + nbytes]

    def view(self, memory: np.ndarray, offset: int, shape: Shape, dtype: Any) -> np.ndarray:
        dtype = np.dtype(dtype)
        nbytes = dtype.itemsize * int(np.prod(shape, dtype=np.int64))
        return memory[offset : offset + nbytes].view(dtype).reshape(shape)

    def from_host(self, buffer: np.ndarray, array: np.ndarray) -> None:
        np.copyto(buffer, array, casting="no")

    def to_host(self, array: np.ndarray, buffer: np.ndarray) -> None:
        np.copyto(array, buffer, casting="no")

    def zero(self, buffer: np.ndarray) -> None:
        buffer.fill(0)

    def synchronize(self) -> None:
        pass


HOST = Host()

HOST_ARRAYS: dict[str, Callable[[np.ndarray], Any]] = {
    "numpy": lambda array: array,
    "memoryview": lambda array: array.data,
}
"""The array kinds of host memory that the core makes itself, without copying."""
