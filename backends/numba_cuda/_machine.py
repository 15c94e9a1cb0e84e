"""Choose what computes: a GPU, or Numba's simulator where NUMBA_ENABLE_CUDASIM=1.

The two of them, `_gpu.Gpu` and `simulator.machine.Simulator`, have these members:

    name, capability (major, minor), multiprocessors, stream, versions, compile_seconds, simulated
    empty, view, adapt, from_host, to_host, begin_read, zero,           the device hooks, as in
    synchronize, capture, free_bytes, device_seconds                    harness/device.py
    launch(kernel, grid, block, arguments)                              on the stream; does not wait
    call(function)                                                      host code that belongs on it
"""

from functools import cache

from backends.numba_cuda._compiled import SIMULATED


@cache
def machine():
    """The machine of this process, opened when first asked for. Raises ResourceError without a GPU."""
    if SIMULATED:
        from backends.numba_cuda.simulator.machine import Simulator

        return Simulator()
    from backends.numba_cuda._gpu import open_gpu

    return open_gpu()
