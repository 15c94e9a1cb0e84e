"""A device that is not there: memory of its own, one stream, graphs that replay what was recorded.

What a GPU would not forgive is an error here: a copy, a wait or an allocation while a graph is captured.
Memory is NaN when taken.
"""

from collections import Counter
from time import perf_counter

import numba
import numpy as np
from numba.cuda.errors import normalize_kernel_dimensions
from numba.cuda.simulator.cudadrv.devicearray import FakeCUDAArray

from backends.numba_cuda._narrow import as_bits
from backends.numba_cuda.simulator import blocks, faults
from harness.device import HOST, Recorder

POISON = 0xFF


class Simulator:
    """The machine. `copies`, `waits` and `launches` (by kernel) count what was asked of it."""

    name = "Numba's CUDA simulator"
    simulated = True
    capability = (9, 0)
    multiprocessors = 2
    stream = 0
    compile_seconds = 0.0

    def __init__(self, stream=None):
        self.copies = self.waits = 0
        self.launches = Counter()
        self._stream = stream or Recorder()
        blocks.install(self._stream)

    @property
    def versions(self):
        return f"{self.name} of numba {numba.__version__}: one thread at a time, for tests"

    # -- memory -------------------------------------------------------------------------------

    def empty(self, nbytes):
        self._stream.refuse_in_a_capture("memory is taken")
        memory = HOST.empty(nbytes)
        memory.fill(POISON)
        return _device_array(memory)

    def view(self, memory, offset, shape, dtype):
        memory = numpy(self.adapt(memory))
        return _device_array(as_bits(HOST.view(memory, offset, shape, dtype)))

    def adapt(self, buffer):
        """Another backend's array on the CPU in the GPU's place as one of ours, in the same memory."""
        if isinstance(buffer, FakeCUDAArray):
            return buffer
        return self.view(_device_array(buffer.memory), buffer.offset, buffer.shape, buffer.dtype)

    def from_host(self, buffer, array):
        self._stream.refuse_in_a_capture("the host copies")
        self.copies += 1
        np.copyto(numpy(buffer), as_bits(array), casting="no")

    def to_host(self, array, buffer):
        self._stream.refuse_in_a_capture("the host waits")
        self.copies += 1
        self.waits += 1
        np.copyto(as_bits(array), numpy(buffer), casting="no")

    def begin_read(self, buffer):
        self._stream.refuse_in_a_capture("the host copies")
        self.copies += 1
        copied = numpy(buffer).copy()
        return lambda array: np.copyto(as_bits(array), copied, casting="no")

    def zero(self, buffer):
        values = numpy(buffer)
        self.call(lambda: values.fill(0))

    def synchronize(self):
        self._stream.refuse_in_a_capture("the host waits")
        self.waits += 1

    def free_bytes(self):
        import psutil

        return psutil.virtual_memory().available

    # -- the stream ---------------------------------------------------------------------------

    def launch(self, kernel, grid, block, arguments):
        name = kernel.py_func.__name__
        faults.check_launch(name, *normalize_kernel_dimensions(grid, block))
        self.launches[name] += 1
        self.call(lambda: kernel[grid, block](*arguments))

    def call(self, function):
        """Do something in the order of the stream; recorded while a graph is captured."""
        self._stream.call(function)

    def capture(self, calls):
        return self._stream.capture(calls)

    def device_seconds(self, call):
        """Seconds that a call takes by the host's clock: of the simulator, and of no GPU."""
        start = perf_counter()
        call()
        return perf_counter() - start


def _device_array(array):
    return FakeCUDAArray(array)


def numpy(buffer):
    """The NumPy array that a simulated device array is."""
    return buffer._ary
