"""Run the threads of a simulated block one at a time, each from barrier to barrier.

Numba's simulator gives every CUDA thread a thread of Python and asks all of them, over and over, whether
they wait. Here a CUDA thread is a greenlet: it runs until it ends or waits at a barrier, and then the
next one does. So a block takes a hundredth of the time, and threads come in an order that is known.
"""

import sys
from contextlib import contextmanager

import numpy as np
from greenlet import getcurrent, greenlet
from numba import cuda as OUTSIDE
from numba.cuda.simulator import kernel as simulated
from numba.cuda.simulator.kernelapi import Dim3, FakeCUDAModule


class Cuda(FakeCUDAModule):
    """What `cuda.` means within a kernel."""

    def __init__(self, grid_dim, block_dim, dynamic_shared_bytes):
        super().__init__(grid_dim, block_dim, dynamic_shared_bytes)
        self.swapped = {}
        self.thread = self.block = self.scheduler = None

    @property
    def threadIdx(self):  # noqa: N802 - CUDA's own name
        return self.thread

    @property
    def blockIdx(self):  # noqa: N802
        return self.block

    def syncthreads(self):
        thread = self.thread
        self.scheduler.switch()
        self.thread = thread


class Block:
    """The threads of one block; in place of the simulator's BlockManager."""

    def __init__(self, function, grid_dim, block_dim, debug):
        self.function = function
        self.threads = [Dim3(*place) for place in np.ndindex(*block_dim)]

    def run(self, place, *arguments):
        cuda = simulated._get_kernel_context()
        cuda.block, cuda.scheduler = Dim3(*place), getcurrent()
        cuda._shared = Shared()
        arguments = [_plain(argument) for argument in arguments]
        todo = iter(self.threads)

        def work():
            # A warning or an error of floating point is nothing that CUDA knows of.
            with np.errstate(all="ignore"):
                for thread in todo:
                    cuda.thread = thread
                    self.function(*arguments)

        waiting = []
        while True:
            worker = greenlet(work)
            worker.switch()
            if worker.dead:
                break
            waiting.append(worker)
        while waiting:
            for worker in waiting:
                worker.switch()
            waiting = [worker for worker in waiting if not worker.dead]


class Shared:
    """Shared memory of one block: an array for each line that asks for one."""

    def __init__(self):
        self._arrays = {}

    def array(self, shape, dtype, alignment=None):
        frame = sys._getframe(1)
        place = frame.f_code, frame.f_lineno
        if place not in self._arrays:
            array = np.empty(shape, dtype)
            array.view(np.uint8).fill(0xFF)
            self._arrays[place] = array
        return self._arrays[place]


def _plain(argument):
    """An array as NumPy's own: what the simulator wraps it in only takes time."""
    if isinstance(argument, simulated.FakeWithinKernelCUDAArray):
        return argument.__dict__["_item"]._ary
    return argument


@contextmanager
def _swapped(function, cuda):
    """Let `cuda` mean the kernel's own in the module of a function, until the launch ends."""
    outermost, names = not cuda.swapped, function.__globals__
    if id(names) not in cuda.swapped:
        meant = [name for name, value in names.items() if value is OUTSIDE]
        cuda.swapped[id(names)] = names, meant
        names.update(dict.fromkeys(meant, cuda))
    try:
        yield
    finally:
        if outermost:
            for names, meant in cuda.swapped.values():
                names.update(dict.fromkeys(meant, OUTSIDE))


def install():
    """Put this scheduler in the simulator's place."""
    simulated.BlockManager = Block
    simulated.FakeCUDAModule = Cuda
    simulated.swapped_cuda_module = _swapped
