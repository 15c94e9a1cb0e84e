"""Run the threads of a simulated grid one at a time, each from barrier to barrier.

Numba's simulator gives every CUDA thread a thread of Python and asks all of them, over and over, whether
they wait. Here a CUDA thread runs in a greenlet until it ends or waits at a barrier, and then the next
one does. Threads come in an order that is known (mode.py), and a barrier knows who is missing at it.
"""

from contextlib import nullcontext
from functools import partial

import numpy as np
from greenlet import getcurrent
from numba import cuda as OUTSIDE
from numba.cuda.simulator import kernel as simulated
from numba.cuda.simulator.cudadrv.devicearray import FakeCUDAArray, FakeWithinKernelCUDAArray
from numba.cuda.simulator.kernelapi import (
    Dim3,
    FakeCUDAConst,
    FakeCUDAFp16,
    FakeCUDAModule,
)
from numba.cuda.simulator.vector_types import vector_types

from backends.numba_cuda.simulator import counting, faults, races
from backends.numba_cuda.simulator.arrays import GLOBAL, of_kernel
from backends.numba_cuda.simulator.atomic import Atomic
from backends.numba_cuda.simulator.memory import Local, Shared
from backends.numba_cuda.simulator.mode import mode
from backends.numba_cuda.simulator.workers import Workers
from harness.device import Recorder

STOCK = simulated.BlockManager, simulated.FakeCUDAModule, simulated.swapped_cuda_module


def install(stream=None):
    """Put this scheduler in the place of the simulator's; or that one back where the mode is `stock`.

    stream: the machine's. While it is captured no kernel runs: one that does was launched beside it.
    """
    ours = Grid, Cuda, _swapped
    Grid.stream = stream or Grid.stream
    simulated.BlockManager, simulated.FakeCUDAModule, simulated.swapped_cuda_module = (
        STOCK if mode().word == "stock" else ours
    )


class Cuda(FakeCUDAModule):
    """What `cuda.` means within a kernel."""

    threadIdx = blockIdx = syncthreads = None  # noqa: N815 - CUDA's own names

    def __init__(self, grid_dim, block_dim, dynamic_bytes):
        self.gridDim, self.blockDim = Dim3(*grid_dim), Dim3(*block_dim)
        self.dynamic_bytes = dynamic_bytes
        self._local = Local(mode().strict)
        self.swapped = {}
        self.votes = []
        self.at_grid_barrier = False

    _const, _atomic, _fp16 = FakeCUDAConst(), Atomic(), FakeCUDAFp16()

    @property
    def laneid(self):
        thread, size = self.threadIdx, self.blockDim
        return (thread.x + size.x * (thread.y + size.y * thread.z)) % self.warpsize

    @property
    def cg(self):
        return self

    def this_grid(self):
        return self

    def sync(self):
        self.at_grid_barrier = True
        self.syncthreads()

    def syncthreads_count(self, value):
        return sum(self._votes(value))

    def syncthreads_and(self, value):
        return int(all(self._votes(value)))

    def syncthreads_or(self, value):
        return int(any(self._votes(value)))

    def _votes(self, value):
        votes = self.votes
        votes.append(bool(value))
        self.syncthreads()
        return votes


for _name, _kind in vector_types.items():
    for _alias in (_name, *_kind.aliases):
        setattr(Cuda, _alias, _kind)


class Grid:
    """The blocks of a launch; in place of the simulator's BlockManager, which is one of them."""

    stream = Recorder()

    def __init__(self, function, grid_dim, block_dim, debug):
        self.function, self.debug = function, debug

    def run(self, place, *arguments):
        """Run all blocks when asked for the first: those asked for later were among them."""
        if any(place):
            return
        self.cuda, self.mode = simulated._get_kernel_context(), mode()
        faults.launchable(self)
        self.stream.refuse_in_a_capture(
            f"{self.function.__name__} runs, launched beside the stream,"
        )
        self.workers, self.watchers = Workers(), self._watchers()
        self.call = partial(self.function, *self._arguments(arguments))
        self.threads = self.mode.ordered(_places(self.cuda.blockDim))
        # A barrier is a switch to the greenlet that this runs in.
        self.cuda.syncthreads = getcurrent().switch
        places = self.mode.ordered(_places(self.cuda.gridDim))
        blocks = [Block(self, place) for place in places]
        try:
            while blocks:
                blocks = self.mode.drawn(blocks)
                for block in blocks:
                    block.go_on()
                waiting = [block for block in blocks if block.waiting]
                if waiting and len(waiting) < len(blocks):
                    raise faults.grid_diverged(self, waiting, blocks)
                blocks = waiting
                for watcher in self.watchers:
                    watcher.grid_barrier()
        except Exception as error:
            raise faults.located(error, self) from error.__cause__
        finally:
            self.workers.stop()

    def _watchers(self):
        counts = [counting.Counting(each, self.function.__name__) for each in counting.active]
        return (*counts, races.Races(self)) if self.mode.word == "races" else tuple(counts)

    def _arguments(self, arguments):
        names = self.function.__code__.co_varnames
        return [self._argument(*pair) for pair in zip(arguments, names, strict=False)]

    def _argument(self, value, name):
        if isinstance(value, tuple):
            return tuple(self._argument(part, f"{name}[{i}]") for i, part in enumerate(value))
        array = value.__dict__["_item"] if isinstance(value, FakeWithinKernelCUDAArray) else value
        if isinstance(array, FakeCUDAArray):
            array = array._ary
        if not isinstance(array, np.ndarray) or array.dtype.names:
            return value  # Numba's own array of records, or no array
        return of_kernel(array, name, GLOBAL, self.watchers)


class Block:
    """The threads of one block."""

    def __init__(self, grid, place):
        self.grid, self.place = grid, place
        self.shared = self.waiting = None

    def go_on(self):
        """Run until every thread has ended, or all of them wait for the whole grid: see `waiting`."""
        grid, cuda = self.grid, self.grid.cuda
        cuda.blockIdx = self.place
        for watcher in grid.watchers:
            watcher.begin_block(self.place)
        if self.waiting is None:
            cuda._shared = self.shared = Shared(cuda.dynamic_bytes, grid.watchers)
            self.waiting = self._begin()
        else:
            cuda._shared = self.shared
            self.waiting = self._cross()
        while self.waiting:
            faults.same_barrier(self)
            if cuda.at_grid_barrier:
                cuda.at_grid_barrier = False
                return
            self.waiting = self._cross()

    def _begin(self):
        """Let every thread run to its first barrier. A worker takes them on until one of them waits."""
        grid, cuda = self.grid, self.grid.cuda
        todo = iter(grid.mode.drawn(grid.threads))
        call = grid.call

        def work():
            for thread in todo:
                cuda.threadIdx = thread
                call()

        if grid.debug:
            work = np.errstate(divide="raise")(work)
        waiting = []
        while True:
            worker = grid.workers.lend()
            outcome = worker.switch(work)
            if outcome:
                grid.workers.take_back(worker, outcome)
                return waiting
            waiting.append((worker, cuda.threadIdx))

    def _cross(self):
        """Let every thread go on from the barrier where all of them wait. Returns those at the next."""
        grid, cuda = self.grid, self.grid.cuda
        cuda.votes = []
        for watcher in grid.watchers:
            watcher.barrier()
        ended = set()
        for worker, thread in grid.mode.drawn(self.waiting):
            cuda.threadIdx = thread
            outcome = worker.switch()
            if outcome:
                grid.workers.take_back(worker, outcome)
                ended.add(worker)
        return [pair for pair in self.waiting if pair[0] not in ended] if ended else self.waiting


def _places(size):
    """Of a block or a grid, in CUDA's order: x runs first."""
    return [Dim3(x, y, z) for z in range(size.z) for y in range(size.y) for x in range(size.x)]


NOTHING = nullcontext()


def _swapped(function, cuda):
    """In place of the simulator's swapped_cuda_module: in it `cuda` means the kernel's own."""
    if id(function.__globals__) in cuda.swapped:
        return NOTHING
    return _Swap(function.__globals__, cuda)


class _Swap:
    """Let `cuda` mean the kernel's own in a module during a launch, and device functions be plain ones.

    And in the modules of those functions: so a call of one is an ordinary call.
    """

    def __init__(self, names, cuda):
        self.names, self.cuda = names, cuda

    def __enter__(self):
        self.outermost = not self.cuda.swapped
        todo = [self.names]
        while todo:
            names = todo.pop()
            if id(names) in self.cuda.swapped:
                continue
            meant, here = {}, {}
            for name, value in names.items():
                if value is OUTSIDE:
                    meant[name], here[name] = value, self.cuda
                elif type(value) is simulated.FakeCUDAKernel and value._device:
                    meant[name], here[name] = value, value.fn
                    todo.append(value.fn.__globals__)
            self.cuda.swapped[id(names)] = names, meant
            names.update(here)

    def __exit__(self, *error):
        if self.outermost:
            for names, meant in self.cuda.swapped.values():
                names.update(meant)
            self.cuda.swapped.clear()
