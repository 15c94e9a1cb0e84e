"""Run the kernels of any .cu file on NumPy arrays; docs/cuda-on-cpu.md shows a test that does."""

from pathlib import Path

import numpy as np

from backends.cupy_cuda._launch import Source
from backends.cupy_cuda.on_cpu.machine import ORDERS, Array, Cpu


class Kernels:
    """One file of CUDA C++, and a machine of its own."""

    def __init__(self, file):
        file = Path(file)
        source = Source(file.stem, file=file)
        self.name, self.text, self.machine = source.name, source.text, Cpu()

    def run(self, kernel, grid, block, *arguments, defines=(), shared_bytes=0, order=0):
        """Launch, and wait. Arrays among the arguments are written in place.

        grid, block: a count, or three. arguments: arrays, None, np.int32, np.int64 and np.float32,
        exactly as the kernel has them. order: of blocks and threads, one of ORDERS.
        """
        extents = [(e, 1, 1) if isinstance(e, int) else e for e in (grid, block)]
        arguments = [on_device(a) if isinstance(a, np.ndarray) else a for a in arguments]
        self.machine.order = order
        self.machine.function(self, kernel, defines)(*extents, arguments, shared_bytes)


def in_every_order(machine, function):
    """What function() returns, arrays: called once for each order of threads, and of the same bits.

    function: copies its inputs anew each time. Raises AssertionError where an order gives other bits.
    """
    before, results = machine.order, []
    try:
        for machine.order in ORDERS:
            results.append([np.array(array) for array in function()])
    finally:
        machine.order = before
    for order, arrays in zip(ORDERS, results, strict=True):
        for number, (array, first) in enumerate(zip(arrays, results[0], strict=True)):
            assert array.tobytes() == first.tobytes(), (
                f"result {number} depends on the order of threads: order {order} is not order 0"
            )
    return results[0]


def on_device(array):
    """The memory of a NumPy array, as an array of the device."""
    assert array.flags.c_contiguous, "a device's arrays are contiguous"
    return Array(array.reshape(-1).view(np.uint8), 0, array.shape, array.dtype)
