"""CuPy's runtime as far as the backend asks it, with whatever driver and GPU a test wants."""

import ctypes
import json
import math
from pathlib import Path
from types import SimpleNamespace

import numpy as np

from backends.cupy_cuda.on_cpu.compiler import compiled


class CUDARuntimeError(RuntimeError):
    def __init__(self, status: int) -> None:
        super().__init__(f"cuda error {status}")
        self.status = status


class FakeRuntime:
    """driver, runtime: versions as CUDA counts them, 12090 for 12.9; 0 is no driver."""

    CUDARuntimeError = CUDARuntimeError

    def __init__(
        self, *, driver=12090, runtime=12090, gpus=1, capability=(9, 0), name="NVIDIA H100"
    ):
        self.driver, self.runtime, self.gpus = driver, runtime, gpus
        self.capability, self.name = capability, name

    def getDeviceCount(self):  # noqa: N802  (CuPy's names)
        if self.driver < self.runtime:
            raise CUDARuntimeError(35)
        if self.gpus == 0:
            raise CUDARuntimeError(100)
        return self.gpus

    def driverGetVersion(self):  # noqa: N802
        return self.driver

    def runtimeGetVersion(self):  # noqa: N802
        return self.runtime

    def getDevice(self):  # noqa: N802
        return 0

    def getDeviceProperties(self, number):  # noqa: N802
        major, minor = self.capability
        return {
            "name": self.name.encode(),
            "major": major,
            "minor": minor,
            "multiProcessorCount": 132,
            "l2CacheSize": 50 << 20,
        }


def missing(*names):
    """An import_module that does not find these."""
    from importlib import import_module

    def find(name):
        if name in names:
            raise ImportError(f"No module named '{name}'")
        return SimpleNamespace(get_version=lambda: 0) if name != "json" else import_module(name)

    return find


# -- CuPy itself, over host memory: kernels are compiled for the CPU -----------------------------


class MemoryPointer:
    def __init__(self, memory, ptr):
        self.memory, self.ptr = memory, ptr

    def __add__(self, offset):
        return MemoryPointer(self.memory, self.ptr + offset)


class UnownedMemory:
    def __init__(self, ptr, size, owner, device_id=-1):
        self.ptr, self.size, self.owner = ptr, size, owner


class FakeArray:
    def __init__(self, shape, dtype, memptr):
        self.shape, self.dtype, self.data = tuple(shape), np.dtype(dtype), memptr

    @property
    def size(self):
        return math.prod(self.shape)

    @property
    def nbytes(self):
        return self.size * self.dtype.itemsize


class OutOfMemoryError(MemoryError):
    pass


class FakePool:
    def __init__(self):
        self.limit, self.taken = 1 << 28, 0

    def alloc(self, nbytes):
        if self.taken + nbytes > self.limit:
            raise OutOfMemoryError(f"out of memory allocating {nbytes:,} bytes")
        self.taken += nbytes
        memory = np.zeros(nbytes + 512, np.uint8)
        return MemoryPointer(memory, -(-memory.ctypes.data // 512) * 512)

    def used_bytes(self):
        return self.taken

    def total_bytes(self):
        return self.taken

    def free_bytes(self):
        return 0


class FakeGraph:
    def __init__(self, steps):
        self.steps = steps

    def upload(self, stream):
        assert isinstance(stream, FakeStream)

    def launch(self, stream):
        for step in self.steps:
            step()


class FakeStream:
    """Work is done when the stream is waited for, not before: who reads too early sees nothing."""

    def __init__(self, non_blocking=False):
        assert non_blocking, "capture needs a stream of its own"
        self.queue, self.recording = [], None
        self.ptr = id(self)
        FakeStream.by_pointer[self.ptr] = self

    by_pointer = {}  # noqa: RUF012
    current = None

    @classmethod
    def from_external(cls, other):
        version, address = other.__cuda_stream__()
        assert version == 0
        return cls.by_pointer[address]

    def use(self):
        FakeStream.current = self

    def __enter__(self):
        self._before, FakeStream.current = FakeStream.current, self

    def __exit__(self, *_):
        FakeStream.current = self._before

    def put(self, step):
        (self.queue if self.recording is None else self.recording).append(step)

    def synchronize(self):
        assert self.recording is None, "cudaErrorStreamCaptureUnsupported"
        while self.queue:
            self.queue.pop(0)()

    def begin_capture(self):
        self.recording = []

    def end_capture(self):
        graph, self.recording = FakeGraph(self.recording), None
        return _Launching(graph)


class _Launching(FakeGraph):
    """A launch is queued on the stream like everything else."""

    def __init__(self, graph):
        super().__init__(graph.steps)

    def launch(self, stream):
        for step in self.steps:
            stream.put(step)


class FakeEvent:
    def __init__(self, disable_timing=False):
        self.stream = None

    def record(self, stream):
        self.stream = stream

    def synchronize(self):
        if self.stream is not None:
            self.stream.synchronize()


class NVRTCError(RuntimeError):
    pass


class FakeNvrtc:
    """Its machine code is the source and the options, which the fake module compiles for the CPU."""

    NVRTCError = NVRTCError

    def getVersion(self):  # noqa: N802
        return (12, 9)

    def createProgram(self, text, name, headers, includes):  # noqa: N802
        return {"text": text, "name": name}

    def compileProgram(self, program, options):  # noqa: N802
        assert options[0] == "-arch=sm_90"
        if "#error" in program["text"]:
            raise NVRTCError("compilation")
        program["options"] = list(options)

    def getProgramLog(self, program):  # noqa: N802
        return f"{program['name']}(1): error"

    def getCUBIN(self, program):  # noqa: N802
        return json.dumps([program["text"], program["options"]]).encode()

    def destroyProgram(self, program):  # noqa: N802
        program.clear()


class FakeKernel:
    def __init__(self, module, name):
        self.name = name
        library = module.library
        self._launch = getattr(library, f"launch_{name}")
        letters = getattr(library, f"letters_{name}")
        self._launch.restype = letters.restype = ctypes.c_char_p
        self._letters = letters().decode()
        self.max_dynamic_shared_size_bytes = 48 << 10
        self.shared_size_bytes = 1 << 10  # as if it had some of its own
        self.kernel = self  # the Function of a RawKernel, which takes a stream

    def __call__(self, grid, block, args, shared_mem=0, stream=None):
        sizes = {"p": 8, "l": 8, "i": 4, "f": 4}
        values = [
            np.uint64(value.data.ptr) if isinstance(value, FakeArray) else value for value in args
        ]
        assert all(isinstance(value, np.generic) for value in values), "TypeError: Unsupported type"
        values = [np.asarray(value) for value in values]
        assert [v.nbytes for v in values] == [sizes[letter] for letter in self._letters]
        most = self.max_dynamic_shared_size_bytes
        assert shared_mem <= most - self.shared_size_bytes * (most == 48 << 10), "invalid value"
        extents = [(ctypes.c_uint * 3)(*extent) for extent in (grid, block)]

        def step():
            pointers = (ctypes.c_void_p * len(values))(*(v.ctypes.data for v in values))
            error = self._launch(*extents, shared_mem, pointers, 0)
            assert not error, error

        stream.put(step)


class FakeModule:
    def __init__(self, *, path):
        code, options = json.loads(Path(path).read_bytes().removesuffix(b"\0"))
        defines = tuple(tuple(o[2:].split("=", 1)) for o in options if o.startswith("-D"))
        self.library = compiled("raw_module", code, defines)

    def get_function(self, name):
        return FakeKernel(self, name)


def fake_cupy(**machine):
    """A module `cupy` on a machine as FakeRuntime takes it."""
    runtime, pool = FakeRuntime(**machine), FakePool()

    def on_stream(stream, step):
        FakeStream.by_pointer[stream].put(step)

    runtime.memcpyAsync = lambda to, source, nbytes, kind, stream: on_stream(
        stream, lambda: ctypes.memmove(to, source, nbytes)
    )
    runtime.memsetAsync = lambda to, value, nbytes, stream: on_stream(
        stream, lambda: ctypes.memset(to, value, nbytes)
    )
    runtime.memGetInfo = lambda: (pool.limit - pool.taken, pool.limit)
    device = SimpleNamespace(id=0, attributes={"MaxSharedMemoryPerBlockOptin": 232448})
    cuda = SimpleNamespace(
        runtime=runtime,
        nvrtc=FakeNvrtc(),
        Device=lambda: device,
        Stream=FakeStream,
        Event=FakeEvent,
        alloc=pool.alloc,
        alloc_pinned_memory=lambda nbytes: np.zeros(nbytes, np.uint8).data,
        memory=SimpleNamespace(OutOfMemoryError=OutOfMemoryError),
        UnownedMemory=UnownedMemory,
        MemoryPointer=lambda memory, offset: MemoryPointer(memory, memory.ptr + offset),
        get_elapsed_time=lambda start, stop: 1.5,
    )
    return SimpleNamespace(
        cuda=cuda,
        ndarray=FakeArray,
        RawModule=FakeModule,
        get_default_memory_pool=lambda: pool,
        __version__="14.2.0",
    )
