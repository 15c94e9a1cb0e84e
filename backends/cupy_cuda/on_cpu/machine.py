"""A device on the CPU: memory that the host does not reach by itself, one stream, graphs.

What a GPU would not forgive is an error here: a copy or an allocation while a graph is captured, an
argument of another type than the kernel's, a replay after memory that it writes to was given back. A
graph replays what was recorded, with the addresses and scalars of that time. Memory is NaN when taken.
"""

import ctypes
import importlib
import math
import os
import weakref
from collections import Counter
from dataclasses import dataclass
from time import perf_counter
from typing import Any

import ml_dtypes
import numpy as np

from backends.cupy_cuda._gpu_errors import no_kernel
from backends.cupy_cuda._options import VARIABLE
from backends.cupy_cuda.on_cpu.compiler import POOL, compile_seconds, compiled, found_compiler
from harness.device import HOST, Recorder
from harness.errors import ConfigError

LETTERS = {np.int32: "i", np.int64: "l", np.float32: "f"}
SIZES = {"i": ctypes.c_int32, "l": ctypes.c_int64, "f": ctypes.c_float}
ORDERS = (0, 1, 2, 3)
"""Of blocks and threads: first to last, last to first, and shuffled with this number as the seed."""
NAMED_ORDERS = {"1": 0, "reversed": 1, "shuffled": 2}
BFLOAT16 = np.dtype(ml_dtypes.bfloat16)
FAKES = {"cublaslt": "cublaslt", "cublas": "cublas", "cudnn": "cudnn"}


@dataclass(frozen=True)
class Pointer:
    ptr: int


@dataclass(frozen=True, eq=False)
class Array:
    """An array of the device: where it lies, and no way to its values but a copy."""

    memory: Any
    offset: int
    shape: tuple[int, ...]
    dtype: np.dtype

    @property
    def data(self):
        return Pointer(self.memory.ctypes.data + self.offset)

    @property
    def size(self):
        return math.prod(self.shape)

    @property
    def nbytes(self):
        return self.size * self.dtype.itemsize

    @property
    def ndim(self):
        return len(self.shape)

    def reshape(self, *shape):
        shape = shape[0] if len(shape) == 1 and not isinstance(shape[0], int) else shape
        assert math.prod(shape) == self.size, f"{self.shape} cannot be seen as {shape}"
        return Array(self.memory, self.offset, tuple(shape), self.dtype)

    def __array__(self, *_, **__):
        raise TypeError("this array is on the device: copy it with to_host")


class Cpu:
    """The machine. `copies`, `waits` and `launches` (by kernel) count what was asked of it, for tests.

    order: of blocks and threads, one of ORDERS; at first as HARNESS_CUDA_ON_CPU says.
    flush_denormals: whether they count as zero in kernels, as CuPy's own compiling (-ftz=true) has it.
    """

    name = "CUDA on the CPU"
    capability = (9, 0)
    multiprocessors = 4
    shared_bytes = 232448 - 1024  # what a block of an H100 may take
    stream = 0
    cache_bytes = 0
    versions = "CUDA on the CPU: kernels run one thread at a time, for tests"

    def __init__(self, stream=None):
        self.order = _asked_order()
        found_compiler()
        self.copies = self.waits = 0
        self.launches: Counter[str] = Counter()
        self.flush_denormals = False
        self._stream = stream or Recorder()

    # -- memory -------------------------------------------------------------------------------

    def empty(self, nbytes):
        self._stream.refuse_in_a_capture("memory is taken")
        memory = HOST.empty(nbytes)
        memory.fill(0xFF)  # NaN: what is read before it is written
        return memory

    def view(self, memory, offset, shape, dtype):
        if not isinstance(memory, np.ndarray):
            memory = self.adapt(memory)
            memory, offset = memory.memory, memory.offset + offset
        return Array(memory, offset, tuple(shape), np.dtype(dtype))

    def adapt(self, buffer):
        """An array of Numba's simulator, which is NumPy's within, in the same memory; uint16 is bf16."""
        if isinstance(buffer, Array):
            return buffer
        values = buffer._ary
        dtype = BFLOAT16 if values.dtype == np.uint16 else values.dtype
        return Array(values.reshape(-1).view(np.uint8), 0, values.shape, dtype)

    def from_host(self, buffer, array):
        self._stream.refuse_in_a_capture("the host copies")
        self.copies += 1
        np.copyto(self.numpy(buffer), array, casting="no")

    def to_host(self, array, buffer):
        self._stream.refuse_in_a_capture("the host waits")
        self.copies += 1
        self.waits += 1
        np.copyto(array, self.numpy(buffer), casting="no")

    def begin_read(self, buffer):
        self._stream.refuse_in_a_capture("the host copies")
        self.copies += 1
        copied = self.numpy(buffer).copy()
        return lambda array: np.copyto(array, copied, casting="no")

    def zero(self, buffer):
        values = self.numpy(buffer)
        self.call(lambda: values.fill(0))

    def synchronize(self):
        self._stream.refuse_in_a_capture("the host waits")
        self.waits += 1

    def free_bytes(self):
        import psutil

        return psutil.virtual_memory().available

    @property
    def compile_seconds(self):
        return compile_seconds()

    def numpy(self, array):
        """An array's memory as NumPy: what a stand-in for a library computes on."""
        return HOST.view(array.memory, array.offset, array.shape, array.dtype)

    # -- the stream ---------------------------------------------------------------------------

    def call(self, function):
        """Run host code in the order of the stream; recorded while a graph is captured."""
        self._stream.call(function)

    def capture(self, calls):
        return self._stream.capture(calls)

    def device_seconds(self, call):
        """Seconds that a call takes by the host's clock: of this emulation, and of no GPU."""
        start = perf_counter()
        call()
        return perf_counter() - start

    # -- kernels and libraries ----------------------------------------------------------------

    def function(self, source, name, defines):
        library = compiled(source.name, source.text, tuple(defines))
        try:
            launch, letters = (
                getattr(library, f"launch_{name}"),
                getattr(library, f"letters_{name}"),
            )
        except AttributeError as error:
            raise no_kernel(source, name, error) from error
        launch.restype = letters.restype = ctypes.c_char_p
        wanted = letters().decode()

        def run(grid, block, arguments, shared_bytes):
            self.launches[name] += 1
            values = self._values(name, wanted, arguments)
            memories = [weakref.ref(a.memory) for a in arguments if isinstance(a, Array)]
            extents = [(ctypes.c_uint * 3)(*extent) for extent in (grid, block)]
            assert math.prod(block) <= 1024, f"{name}: {block} is more than 1024 threads"
            assert min(*grid, *block) >= 1, f"{name}: a grid of {grid} x {block}"
            assert shared_bytes <= self.shared_bytes, (
                f"{name}: {shared_bytes} bytes of shared memory"
            )

            def step():
                if any(memory() is None for memory in memories):
                    raise RuntimeError(f"{name}: memory of an argument was given back")
                pointers = (ctypes.c_void_p * len(values))(*map(ctypes.addressof, values))
                POOL.flush = self.flush_denormals
                error = launch(*extents, shared_bytes, pointers, self.order)
                if error:
                    raise RuntimeError(f"{name}: {error.decode()}")

            self.call(step)

        return run

    def _values(self, name, wanted, arguments):
        """The arguments as the kernel takes them, each of exactly its type."""
        assert len(arguments) == len(wanted), f"{name} takes {len(wanted)}, not {len(arguments)}"
        values = []
        for number, (letter, argument) in enumerate(zip(wanted, arguments, strict=True)):
            if letter == "p":
                assert argument is None or isinstance(argument, Array), f"{name}: argument {number}"
                values.append(ctypes.c_void_p(argument.data.ptr if argument is not None else None))
                continue
            given = LETTERS.get(type(argument))
            assert given == letter, f"{name}: argument {number} is {type(argument)}, not {letter}"
            values.append(SIZES[letter](argument.item()))
        return values

    def library(self, name):
        return importlib.import_module(f"backends.cupy_cuda.on_cpu.{FAKES[name]}")


def _asked_order():
    asked = os.environ.get(VARIABLE, "")
    if asked in ("", "0"):
        return 0
    if asked not in NAMED_ORDERS:
        raise ConfigError(
            f"there is no order of threads called '{asked}': {VARIABLE}={asked}",
            slug="unknown-thread-order",
            expected=", ".join(NAMED_ORDERS),
            found=repr(asked),
            do=f"set {VARIABLE}=1 (first to last), or one of the others",
        )
    return NAMED_ORDERS[asked]
