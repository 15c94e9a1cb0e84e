"""A device on the CPU: memory that the host does not reach by itself, one stream, graphs.

What a GPU would not forgive is an error here: a copy or an allocation while a graph is captured, an
argument of another type than the kernel's, an address that no array has. A graph replays what was
recorded, with the addresses and scalars of that time.
"""

import ctypes
import importlib
import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from backends.cupy_cuda.on_cpu.compiler import compiled
from harness.device import HOST

LETTERS = {np.int32: "i", np.int64: "l", np.float32: "f"}
SIZES = {"i": ctypes.c_int32, "l": ctypes.c_int64, "f": ctypes.c_float}
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
    """The machine. `copies` and `waits` count what was asked of it, for tests."""

    name = "CUDA on the CPU"
    capability = (9, 0)
    multiprocessors = 4
    shared_bytes = 232448 - 1024  # what a block of an H100 may take
    stream = 0

    def __init__(self):
        self.order = 0
        self.copies = self.waits = 0
        self._recording = None

    # -- memory -------------------------------------------------------------------------------

    def empty(self, nbytes):
        self._not_in_a_capture("memory is taken")
        return HOST.empty(nbytes)

    def view(self, memory, offset, shape, dtype):
        if isinstance(memory, Array):
            memory, offset = memory.memory, memory.offset + offset
        return Array(memory, offset, tuple(shape), np.dtype(dtype))

    def from_host(self, buffer, array):
        self._not_in_a_capture("the host copies")
        self.copies += 1
        np.copyto(self.numpy(buffer), array, casting="no")

    def to_host(self, array, buffer):
        self._not_in_a_capture("the host waits")
        self.copies += 1
        self.waits += 1
        np.copyto(array, self.numpy(buffer), casting="no")

    def begin_read(self, buffer):
        self._not_in_a_capture("the host copies")
        self.copies += 1
        copied = self.numpy(buffer).copy()
        return lambda array: np.copyto(array, copied, casting="no")

    def zero(self, buffer):
        values = self.numpy(buffer)
        self.call(lambda: values.fill(0))

    def synchronize(self):
        self._not_in_a_capture("the host waits")
        self.waits += 1

    def free_bytes(self):
        import psutil

        return psutil.virtual_memory().available

    def numpy(self, array):
        """An array's memory as NumPy: what a stand-in for a library computes on."""
        return HOST.view(array.memory, array.offset, array.shape, array.dtype)

    # -- the stream ---------------------------------------------------------------------------

    def call(self, function):
        """Run host code in the order of the stream; recorded while a graph is captured."""
        if self._recording is None:
            function()
        else:
            self._recording.append(function)

    def capture(self, calls):
        assert self._recording is None, "a graph is being captured already"
        self._recording = recorded = []
        try:
            for call in calls:
                call()
        finally:
            self._recording = None

        def replay():
            for step in recorded:
                step()

        return replay

    def _not_in_a_capture(self, what):
        if self._recording is not None:
            raise RuntimeError(f"{what} while a graph is captured: CUDA refuses that")

    # -- kernels and libraries ----------------------------------------------------------------

    def function(self, source, name, defines):
        library = compiled(source.name, source.text, tuple(defines))
        launch, letters = getattr(library, f"launch_{name}"), getattr(library, f"letters_{name}")
        launch.restype = letters.restype = ctypes.c_char_p
        wanted = letters().decode()

        def run(grid, block, arguments, shared_bytes):
            values = self._values(name, wanted, arguments)
            extents = [(ctypes.c_uint * 3)(*extent) for extent in (grid, block)]
            assert math.prod(block) <= 1024, f"{name}: {block} is more than 1024 threads"
            assert min(*grid, *block) >= 1, f"{name}: a grid of {grid} x {block}"
            assert shared_bytes <= self.shared_bytes, (
                f"{name}: {shared_bytes} bytes of shared memory"
            )

            def step():
                pointers = (ctypes.c_void_p * len(values))(*map(ctypes.addressof, values))
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
