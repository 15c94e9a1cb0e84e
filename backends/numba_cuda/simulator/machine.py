"""A device that is not there: memory of its own, one stream, graphs that replay what was recorded.

What a GPU would not forgive is an error here: a copy, a wait or an allocation while a graph is captured.
Memory is NaN when taken.
"""

from collections import Counter
from time import perf_counter

import numba
import numpy as np
from numba import cuda

from backends.numba_cuda._narrow import as_bits
from backends.numba_cuda.simulator import blocks
from harness.device import HOST

POISON = 0xFF


class Simulator:
    """The machine. `copies`, `waits` and `launches` (by kernel) count what was asked of it."""

    name = "Numba's CUDA simulator"
    simulated = True
    capability = (9, 0)
    multiprocessors = 2
    stream = 0
    compile_seconds = 0.0

    def __init__(self):
        blocks.install()
        self.copies = self.waits = 0
        self.launches = Counter()
        self._recording = None

    @property
    def versions(self):
        return f"{self.name} of numba {numba.__version__}: one thread at a time, for tests"

    # -- memory -------------------------------------------------------------------------------

    def empty(self, nbytes):
        self._not_in_a_capture("memory is taken")
        memory = HOST.empty(nbytes)
        memory.fill(POISON)
        return _device_array(memory)

    def view(self, memory, offset, shape, dtype):
        return _device_array(as_bits(HOST.view(numpy(memory), offset, shape, dtype)))

    def adapt(self, buffer):
        return buffer

    def from_host(self, buffer, array):
        self._not_in_a_capture("the host copies")
        self.copies += 1
        np.copyto(numpy(buffer), as_bits(array), casting="no")

    def to_host(self, array, buffer):
        self._not_in_a_capture("the host waits")
        self.copies += 1
        self.waits += 1
        np.copyto(as_bits(array), numpy(buffer), casting="no")

    def begin_read(self, buffer):
        self._not_in_a_capture("the host copies")
        self.copies += 1
        copied = numpy(buffer).copy()
        return lambda array: np.copyto(as_bits(array), copied, casting="no")

    def zero(self, buffer):
        values = numpy(buffer)
        self.call(lambda: values.fill(0))

    def synchronize(self):
        self._not_in_a_capture("the host waits")
        self.waits += 1

    def free_bytes(self):
        import psutil

        return psutil.virtual_memory().available

    # -- the stream ---------------------------------------------------------------------------

    def launch(self, kernel, grid, block, arguments):
        self.launches[kernel.py_func.__name__] += 1
        self.call(lambda: kernel[grid, block](*arguments))

    def call(self, function):
        """Do something in the order of the stream; recorded while a graph is captured."""
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

    def device_seconds(self, call):
        """Seconds that a call takes by the host's clock: of the simulator, and of no GPU."""
        start = perf_counter()
        call()
        return perf_counter() - start

    def _not_in_a_capture(self, what):
        if self._recording is not None:
            raise RuntimeError(f"{what} while a graph is captured: CUDA refuses that")


def _device_array(array):
    return cuda.simulator.cudadrv.devicearray.FakeCUDAArray(array)


def numpy(buffer):
    """The NumPy array that a simulated device array is."""
    return buffer._ary
