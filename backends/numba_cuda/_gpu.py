"""The GPU, through Numba and the CUDA driver: device arrays, one stream, graphs, launches.

Everything runs on the one stream, in order. Copies to the device go through pinned memory and come back
at once; only to_host, synchronize and the reading of a begun read wait. Numba has no graphs: a capture
is the driver's own, of whatever is asked of the stream meanwhile, CuPy's calls among it.
"""

import os
import weakref
from contextlib import contextmanager, suppress
from functools import cached_property, partial
from time import perf_counter

import numpy as np
from numba import types

from backends.numba_cuda import _gpu_errors
from backends.numba_cuda._compiled import VARIABLE
from backends.numba_cuda._driver import Driver
from backends.numba_cuda._kept import keep, was_compiled
from backends.numba_cuda._narrow import as_bits
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


def open_gpu():
    """The first GPU that this process sees. Raises ResourceError or PluginError that says what lacks."""
    cuda, binding = _gpu_errors.checked_numba_cuda()
    _quiet()
    driver = Driver(binding)
    make = partial(new_stream, cuda, driver)
    return Gpu(cuda, driver, shared("cuda", "numba_cuda", VARIABLE, Stream, make))


def new_stream(cuda, driver):
    """A stream that does not wait for the device's default one, as Numba's own would."""
    cuda.current_context()  # it belongs to one
    handle = driver.cuStreamCreate(driver.CUstream_flags.CU_STREAM_NON_BLOCKING)
    return Stream(int(handle), handle)


class Gpu(PinnedCopies):
    """The machine. `copies` and `waits` count what the host did, as on the CPU."""

    simulated = False

    def __init__(self, cuda, driver, stream):
        self._cuda, self._known_driver = cuda, driver
        self._context = cuda.current_context()
        device = self._context.device
        self.name, self.capability = _text(device.name), tuple(device.compute_capability)
        self.multiprocessors = device.MULTIPROCESSOR_COUNT
        _gpu_errors.check_device(self.name, self.capability)
        self._shared = stream
        self._numba_stream = cuda.external_stream(self._shared.address)
        self.compile_seconds = 0.0
        super().__init__()

    @property
    def _driver(self):
        self._cuda.current_context()  # a thread's own
        return self._known_driver

    @property
    def stream(self):
        """Its address."""
        return self._shared.address

    # -- memory -------------------------------------------------------------------------------

    def empty(self, nbytes):
        if self._shared.capturing:
            raise memory_in_capture(nbytes)
        try:
            return self._cuda.device_array(max(1, nbytes), np.uint8)
        except self._cuda.cudadrv.driver.CudaAPIError as error:
            if error.code != self._driver.CUresult.CUDA_ERROR_OUT_OF_MEMORY:
                raise
            raise out_of_memory(self, nbytes) from error

    def view(self, memory, offset, shape, dtype):
        shape = tuple(map(int, shape))
        dtype = as_bits(np.empty(0, dtype)).dtype
        stop = offset + int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
        part = self.adapt(memory).gpu_data.view(offset, stop)
        return self._array(shape, _strides(shape, dtype), dtype, gpu_data=part)

    @property
    def _array(self):
        return self._cuda.cudadrv.devicearray.DeviceNDArray

    def adapt(self, buffer):
        """An array of CuPy's, or of whoever says where it lies, as Numba's; bfloat16 is uint16."""
        if isinstance(buffer, self._array):
            return buffer
        described = {
            "shape": tuple(buffer.shape),
            "typestr": as_bits(np.empty(0, buffer.dtype)).dtype.str,
            "data": (_address(buffer), False),
            "version": 3,
        }
        return self._cuda.from_cuda_array_interface(described, owner=buffer, sync=False)

    def _new_slot(self):
        return Slot(self._cuda.event(timing=False), self._pinned)

    def _pinned(self, nbytes):
        return self._cuda.pinned_array(nbytes, np.uint8)

    def _record(self, event):
        event.record(self._numba_stream)

    def _as_on_device(self, array):
        return as_bits(array)

    def _copy_to_device(self, buffer, array):
        if array.nbytes:
            self._driver.cuMemcpyHtoDAsync(
                _address(buffer), array.ctypes.data, array.nbytes, self.stream
            )

    def _copy_to_host(self, array, buffer):
        if array.nbytes:
            self._driver.cuMemcpyDtoHAsync(
                array.ctypes.data, _address(buffer), array.nbytes, self.stream
            )

    def zero(self, buffer):
        if buffer.nbytes:
            self._driver.cuMemsetD8Async(_address(buffer), 0, buffer.nbytes, self.stream)

    def _wait(self):
        self._driver.cuStreamSynchronize(self.stream)

    def free_bytes(self):
        free, _ = self._driver.cuMemGetInfo()
        return free

    # -- the stream ---------------------------------------------------------------------------

    def launch(self, kernel, grid, block, arguments):
        if grid == 0 or (isinstance(grid, tuple) and 0 in grid):
            return
        if _NONE not in kernel.extensions:
            kernel.extensions.append(_NONE)  # before it is compiled, which takes what stands there
            keep(kernel)
        known, start = len(kernel.overloads), perf_counter()
        try:
            kernel[grid, block, self._numba_stream](*arguments)
        except ImportError as error:  # NVVM is looked for when something is compiled
            raise _gpu_errors.library_missing(error) from error
        new = list(kernel.overloads)[known:] if len(kernel.overloads) > known else ()
        if any(was_compiled(kernel, types) for types in new):
            self.compile_seconds += perf_counter() - start

    def call(self, function):
        """Host code that asks the stream for something."""
        function()

    def capture(self, calls):
        """Record calls as a CUDA graph. Raises ResourceError where they take memory."""
        calls = tuple(calls)
        if not calls:
            return nothing
        with no_garbage_collected():
            graph = self._captured(calls)
        return Graph(self._driver, graph, self.stream)

    def _captured(self, calls):
        driver, stream = self._driver, self.stream
        assert not self._shared.capturing, "a graph is being captured already"
        driver.cuStreamBeginCapture(
            stream, driver.CUstreamCaptureMode.CU_STREAM_CAPTURE_MODE_RELAXED
        )
        self._shared.capturing = True
        try:
            with self._context.defer_cleanup(), self._memory_refused():
                for call in calls:
                    call()
        except BaseException:
            with suppress(Exception):  # a capture that was broken ends with an error of its own
                driver.cuGraphDestroy(driver.cuStreamEndCapture(stream))
            raise
        finally:
            self._shared.capturing = False
        return driver.cuStreamEndCapture(stream)

    @contextmanager
    def _memory_refused(self):
        """Nothing of Numba's takes memory, whoever asks for it: not only `empty`."""

        def refuse(nbytes):
            raise memory_in_capture(nbytes)

        self._context.memalloc = refuse
        try:
            yield
        finally:
            del self._context.memalloc

    def device_seconds(self, call):
        """The time between two events around what a call asks for."""
        start, stop = self._cuda.event(), self._cuda.event()
        start.record(self._numba_stream)
        call()
        stop.record(self._numba_stream)
        stop.synchronize()
        return self._cuda.event_elapsed_time(start, stop) / 1e3

    @cached_property
    def versions(self):
        """What computes here, for the run's header."""
        import numba
        import numba_cuda

        return (
            f"{self.name} (compute capability {self.capability[0]}.{self.capability[1]}), "
            f"driver {dotted(self._driver.cuDriverGetVersion())}, "
            f"numba-cuda {numba_cuda.__version__}, numba {numba.__version__}"
        )


class Graph:
    """A captured graph, ready to be launched as often as it is called."""

    def __init__(self, driver, graph, stream):
        self._driver, self._stream = driver, stream
        self._executable = driver.cuGraphInstantiate(graph, 0)
        driver.cuGraphDestroy(graph)
        weakref.finalize(self, driver.cuGraphExecDestroy, self._executable).atexit = False
        driver.cuGraphUpload(self._executable, stream)

    def __call__(self):
        self._driver.cuGraphLaunch(self._executable, self._stream)


class _None:
    """Numba compiles an argument that is None as a pointer, and has no way to hand one over."""

    @staticmethod
    def prepare_args(ty, val, stream, retr):
        return (types.uint64, 0) if val is None else (ty, val)


_NONE = _None()


def _strides(shape, dtype):
    """Of an array without gaps, in bytes."""
    strides, stride = [], dtype.itemsize
    for extent in reversed(shape):
        strides.insert(0, stride)
        stride *= extent
    return tuple(strides)


def _address(buffer):
    """Where an array lies on the device."""
    return buffer.__cuda_array_interface__["data"][0]


def _text(name):
    return name.decode() if isinstance(name, bytes) else name


def _quiet():
    """Numba does not wait for the stream of an array that it is given, nor warn of a small grid."""
    from numba.cuda.core import config

    for name in ("CUDA_ARRAY_INTERFACE_SYNC", "CUDA_LOW_OCCUPANCY_WARNINGS"):
        os.environ[f"NUMBA_{name}"] = "0"  # for when Numba reads its settings again
        setattr(config, name, 0)
