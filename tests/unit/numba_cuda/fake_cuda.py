# ruff: noqa: N802 - the driver's own names
"""A numba.cuda and a cuda.bindings.driver without a GPU: memory is the host's, the stream a queue.

What is asked of the stream is done when it is waited for and not before; `said` is every call, in order.
"""

import ctypes
from contextlib import contextmanager
from enum import IntEnum
from types import SimpleNamespace

import numpy as np

STREAM = 0x57


class CUresult(IntEnum):
    CUDA_SUCCESS = 0
    CUDA_ERROR_OUT_OF_MEMORY = 2
    CUDA_ERROR_NOT_INITIALIZED = 3
    CUDA_ERROR_NO_DEVICE = 100


class FakeBinding:
    """cuda.bindings.driver: functions that return a code, and then what they found."""

    CUresult = CUresult
    CUstream_flags = SimpleNamespace(CU_STREAM_NON_BLOCKING=1)
    CUstreamCaptureMode = SimpleNamespace(CU_STREAM_CAPTURE_MODE_RELAXED=2)

    def __init__(self, version=13000, devices=1, started=CUresult.CUDA_SUCCESS):
        self.version, self.devices, self.started = version, devices, started
        self.said, self.queue, self.recording, self.graphs = [], [], None, {}

    def put(self, step):
        (self.queue if self.recording is None else self.recording).append(step)

    def cuDriverGetVersion(self):
        return CUresult.CUDA_SUCCESS, self.version

    def cuInit(self, flags):
        return (self.started,)

    def cuDeviceGetCount(self):
        return CUresult.CUDA_SUCCESS, self.devices

    def cuMemGetInfo(self):
        return CUresult.CUDA_SUCCESS, 1 << 28, 1 << 31

    def cuStreamCreate(self, flags):
        return self._done("create", flags), STREAM

    def cuStreamSynchronize(self, stream):
        assert self.recording is None, "CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED"
        while self.queue:
            self.queue.pop(0)()
        return (self._done("wait", stream),)

    def cuMemcpyHtoDAsync(self, to, source, nbytes, stream):
        self.put(lambda: ctypes.memmove(to, source, nbytes))
        return (self._done("to device", stream),)

    def cuMemcpyDtoHAsync(self, to, source, nbytes, stream):
        self.put(lambda: ctypes.memmove(to, source, nbytes))
        return (self._done("to host", stream),)

    def cuMemsetD8Async(self, to, value, nbytes, stream):
        self.put(lambda: ctypes.memset(to, value, nbytes))
        return (self._done("memset", stream),)

    def cuStreamBeginCapture(self, stream, mode):
        self.recording = []
        return (self._done("begin", stream, mode),)

    def cuStreamEndCapture(self, stream):
        graph, self.graphs[graph], self.recording = f"graph{len(self.graphs)}", self.recording, None
        return self._done("end", stream), graph

    def cuGraphInstantiate(self, graph, flags):
        self.graphs[f"ready {graph}"] = self.graphs[graph]
        return self._done("instantiate", graph, flags), f"ready {graph}"

    def cuGraphDestroy(self, graph):
        return (self._done("destroy", graph),)

    def cuGraphExecDestroy(self, graph):
        return (self._done("destroy", graph),)

    def cuGraphUpload(self, graph, stream):
        return (self._done("upload", graph, stream),)

    def cuGraphLaunch(self, graph, stream):
        for step in self.graphs[graph]:
            self.put(step)
        return (self._done("launch", graph, stream),)

    def _done(self, *what):
        self.said.append(what)
        return CUresult.CUDA_SUCCESS


class CudaAPIError(Exception):
    def __init__(self, code):
        self.code = code


class Memory:
    """A pointer into an array of bytes, as Numba's MemoryPointer."""

    def __init__(self, array, start, stop):
        self.array, self.start, self.stop = array, start, stop

    def view(self, start, stop):
        assert 0 <= start <= stop <= self.stop - self.start, "a view beyond its memory"
        return Memory(self.array, self.start + start, self.start + stop)


class DeviceNDArray:
    def __init__(self, shape, strides, dtype, stream=0, gpu_data=None):
        self.shape, self.strides, self.dtype, self.gpu_data = shape, strides, dtype, gpu_data
        self.size = int(np.prod(shape))
        self.nbytes = self.size * dtype.itemsize

    @property
    def __cuda_array_interface__(self):
        address = self.gpu_data.array.ctypes.data + self.gpu_data.start
        return {"shape": self.shape, "typestr": self.dtype.str, "data": (address, False)}


class FakeEvent:
    def __init__(self, binding):
        self.binding, self.done = binding, True

    def record(self, stream):
        self.done = False

        def happen():
            self.done = True

        self.binding.put(happen)
        self.binding.said.append(("event", stream))

    def synchronize(self):
        while not self.done:
            self.binding.queue.pop(0)()


class FakeContext:
    def __init__(self, device):
        self.device, self.held = device, False

    def memalloc(self, nbytes):
        if nbytes > 1 << 28:
            raise CudaAPIError(CUresult.CUDA_ERROR_OUT_OF_MEMORY)
        return Memory(np.full(nbytes, 0xFF, np.uint8), 0, nbytes)

    @contextmanager
    def defer_cleanup(self):
        self.held = True
        yield
        self.held = False


class FakeCuda:
    """numba.cuda, as much of it as the machine calls."""

    cudadrv = SimpleNamespace(
        driver=SimpleNamespace(CudaAPIError=CudaAPIError),
        devicearray=SimpleNamespace(DeviceNDArray=DeviceNDArray),
    )

    def __init__(self, binding, name="NVIDIA H100", capability=(9, 0)):
        self._binding = binding
        self._context = FakeContext(
            SimpleNamespace(name=name, compute_capability=capability, MULTIPROCESSOR_COUNT=132)
        )

    def current_context(self):
        return self._context

    def external_stream(self, address):
        return f"stream {address:#x}"

    def device_array(self, shape, dtype):
        dtype = np.dtype(dtype)
        memory = self._context.memalloc(shape * dtype.itemsize)
        return DeviceNDArray((shape,), (dtype.itemsize,), dtype, gpu_data=memory)

    def pinned_array(self, shape, dtype):
        return np.empty(shape, dtype)

    def event(self, timing=True):
        return FakeEvent(self._binding)

    def event_elapsed_time(self, start, stop):
        return 2.5

    def from_cuda_array_interface(self, described, owner=None, sync=True):
        assert not sync, "that would wait"
        shape, dtype = described["shape"], np.dtype(described["typestr"])
        address, _ = described["data"]
        values = np.ctypeslib.as_array((ctypes.c_uint8 * owner.nbytes).from_address(address))
        return DeviceNDArray(shape, None, dtype, gpu_data=Memory(values, 0, owner.nbytes))


class FakeKernel:
    """A function; it is compiled when it is first launched, with the extensions of that time."""

    def __init__(self, cuda, function):
        self._cuda, self._function = cuda, function
        self.py_func, self.stats = function, SimpleNamespace(cache_misses={})
        self.extensions, self.overloads = [], {}

    def __getitem__(self, configuration):
        def run(*arguments):
            if self.extensions not in self.overloads.values():
                types = tuple(map(type, arguments))
                self.overloads[types] = list(self.extensions)
                self.stats.cache_misses[types] = 1
            binding = self._cuda._binding
            binding.said.append(("kernel", *configuration))
            binding.put(lambda: self._function(*arguments))

        return run
