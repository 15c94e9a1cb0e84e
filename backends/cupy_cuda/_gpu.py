"""The GPU, through CuPy: memory from its pool, one stream of our own, kernels compiled by nvrtc.

Everything runs on the one stream, in order. Copies to the device go through pinned memory and come back
at once; only to_host, synchronize and the reading of a begun read wait.
"""

import threading
from contextlib import suppress
from functools import cached_property
from time import perf_counter

import ml_dtypes
import numpy as np

from backends.cupy_cuda import _gpu_errors
from backends.cupy_cuda._cubin import cubin
from backends.cupy_cuda._options import VARIABLE
from harness.device import Stream, shared
from harness.device.gpu import (
    PinnedCopies,
    Slot,
    dotted,
    memory_in_capture,
    no_garbage_collected,
    nothing,
    out_of_memory,
)

BFLOAT16 = np.dtype(ml_dtypes.bfloat16)

DEFAULT_SHARED_BYTES = 48 << 10
"""What a block may take of shared memory without asking for more: of both kinds together."""

TO_DEVICE, TO_HOST = 1, 2  # of cudaMemcpyKind


def open_gpu():
    """The first GPU that this process sees. Raises ResourceError or PluginError that says what lacks."""
    cupy = _gpu_errors.checked_cupy()
    return Gpu(cupy, shared("cuda", "cupy", VARIABLE, Stream, lambda: new_stream(cupy)))


def new_stream(cupy):
    """A stream that does not wait for the device's default one."""
    made = cupy.cuda.Stream(non_blocking=True)
    return Stream(made.ptr, made)


class Gpu(PinnedCopies):
    """The machine. `copies` and `waits` count what the host did, as on the CPU."""

    def __init__(self, cupy, stream=None):
        self._cupy, self._runtime = cupy, cupy.cuda.runtime
        self.device = cupy.cuda.Device()
        properties = self._runtime.getDeviceProperties(self.device.id)
        self.name = properties["name"].decode()
        self.capability = (properties["major"], properties["minor"])
        self.multiprocessors = properties["multiProcessorCount"]
        self.shared_bytes = self.device.attributes["MaxSharedMemoryPerBlockOptin"]
        self.cache_bytes = properties["l2CacheSize"]
        self.compile_seconds = 0.0
        self._pool = cupy.get_default_memory_pool()
        self._shared = stream or new_stream(cupy)
        self._stream = cupy.cuda.Stream.from_external(self._shared)
        self._stream.use()
        self._thread = threading.get_ident()
        self._modules, self._functions = {}, {}
        super().__init__()

    @property
    def stream(self):
        return self._stream.ptr

    # -- memory -------------------------------------------------------------------------------

    def empty(self, nbytes):
        if self._shared.capturing:
            raise memory_in_capture(nbytes)
        try:
            return self._cupy.cuda.alloc(max(1, nbytes))
        except self._cupy.cuda.memory.OutOfMemoryError as error:
            raise out_of_memory(self, nbytes) from error

    def view(self, memory, offset, shape, dtype):
        if hasattr(memory, "shape"):  # and not memory as `empty` gives it
            memory = self.adapt(memory).data
        return self._cupy.ndarray(tuple(shape), np.dtype(dtype), memptr=memory + offset)

    def adapt(self, buffer):
        """An array of Numba's, or of whoever says where it lies, as CuPy's; uint16 is bfloat16."""
        if isinstance(buffer, self._cupy.ndarray):
            return buffer
        address, _ = buffer.__cuda_array_interface__["data"]
        dtype = BFLOAT16 if buffer.dtype == np.uint16 else np.dtype(buffer.dtype)
        nbytes = buffer.size * dtype.itemsize
        memory = self._cupy.cuda.UnownedMemory(address, nbytes, buffer, self.device.id)
        pointer = self._cupy.cuda.MemoryPointer(memory, 0)
        return self._cupy.ndarray(tuple(buffer.shape), dtype, memptr=pointer)

    def _new_slot(self):
        event = self._cupy.cuda.Event(disable_timing=True)
        return Slot(event, self._cupy.cuda.alloc_pinned_memory)

    def _record(self, event):
        event.record(self._stream)

    def _wait(self):
        self._stream.synchronize()

    def _copy_to_device(self, buffer, array):
        self._copy(buffer.data.ptr, array.ctypes.data, array.nbytes, TO_DEVICE)

    def _copy_to_host(self, array, buffer):
        self._copy(array.ctypes.data, buffer.data.ptr, array.nbytes, TO_HOST)

    def _copy(self, to, source, nbytes, kind):
        self._runtime.memcpyAsync(to, source, nbytes, kind, self._stream.ptr)

    def zero(self, buffer):
        self._runtime.memsetAsync(buffer.data.ptr, 0, buffer.nbytes, self._stream.ptr)

    def free_bytes(self):
        free, _ = self._runtime.memGetInfo()
        return free + self._pool.free_bytes()

    # -- the stream ---------------------------------------------------------------------------

    def call(self, function):
        """Host code that asks the stream for something: a library's call."""
        if threading.get_ident() == self._thread:
            function()
        else:  # the current stream is a thread's own
            with self._stream:
                function()

    def capture(self, calls):
        """Record calls as a CUDA graph. Raises ResourceError where they take memory."""
        calls = tuple(calls)
        if not calls:
            return nothing
        with no_garbage_collected():
            graph = self._captured(calls)
        graph.upload(self._stream)
        return lambda: graph.launch(self._stream)

    def _captured(self, calls):
        before = self._pool.total_bytes(), self._pool.used_bytes()
        self._stream.begin_capture()
        self._shared.capturing = True
        try:
            for call in calls:
                call()
        except BaseException:
            with suppress(Exception):  # a capture that was broken ends with an error of its own
                self._stream.end_capture()
            raise
        finally:
            self._shared.capturing = False
        graph = self._stream.end_capture()
        after = self._pool.total_bytes(), self._pool.used_bytes()
        if after != before:
            raise memory_in_capture(after[1] - before[1])
        return graph

    def device_seconds(self, call):
        """The time between two events around what a call asks for."""
        start, stop = self._cupy.cuda.Event(), self._cupy.cuda.Event()
        start.record(self._stream)
        call()
        stop.record(self._stream)
        stop.synchronize()
        return self._cupy.cuda.get_elapsed_time(start, stop) / 1e3

    # -- kernels and libraries ----------------------------------------------------------------

    def function(self, source, name, defines):
        key = source.text, name, defines
        if key not in self._functions:
            start = perf_counter()
            self._functions[key] = self._launcher(source, name, defines)
            self.compile_seconds += perf_counter() - start
        return self._functions[key]

    def _launcher(self, source, name, defines):
        module_key = source.text, defines
        if module_key not in self._modules:
            architecture = "sm_{}{}".format(*self.capability)
            file = cubin(self._cupy.cuda.nvrtc, source, defines, architecture)
            self._modules[module_key] = self._cupy.RawModule(path=str(file))
        try:
            kernel = self._modules[module_key].get_function(name)
        except self._cupy.cuda.driver.CUDADriverError as error:
            raise _gpu_errors.no_kernel(source, name, error) from error
        function, stream = kernel.kernel, self._stream
        allowed = DEFAULT_SHARED_BYTES - kernel.shared_size_bytes

        def launch(grid, block, arguments, shared_bytes):
            nonlocal allowed
            if shared_bytes > allowed:
                if shared_bytes + kernel.shared_size_bytes > self.shared_bytes:
                    raise _gpu_errors.little_shared_memory(self, name, shared_bytes)
                kernel.max_dynamic_shared_size_bytes = allowed = shared_bytes
            assert _PLAIN.isdisjoint(map(type, arguments)), f"{name}: a number without a type"
            values = [_NULL if argument is None else argument for argument in arguments]
            function(grid, block, values, shared_bytes, stream)

        return launch

    def library(self, name):
        return _gpu_errors.library(name)

    @cached_property
    def versions(self):
        """What computes here, for the run's header."""
        return (
            f"{self.name} (compute capability {self.capability[0]}.{self.capability[1]}), "
            f"driver {dotted(self._runtime.driverGetVersion())}, "
            f"CUDA runtime {dotted(self._runtime.runtimeGetVersion())}, "
            f"CuPy {self._cupy.__version__}"
        )


_NULL = np.uint64(0)
"""A null pointer, as an argument of a kernel."""

_PLAIN = frozenset({int, float, bool})
"""What CuPy would hand over as 64 bits, whatever the kernel takes."""
