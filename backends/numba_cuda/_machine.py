"""Choose what computes: a GPU, or Numba's simulator where NUMBA_ENABLE_CUDASIM=1.

The two of them, `_gpu.Gpu` and `simulator.machine.Simulator`, have these members:

    name, capability (major, minor), multiprocessors, stream, versions, compile_seconds, simulated
    empty, view, adapt, from_host, to_host, begin_read, zero,           the device hooks, as in
    synchronize, capture, free_bytes, device_seconds                    harness/device/hooks.py
    launch(kernel, grid, block, arguments)                              on the stream; does not wait
    call(function)                                                      host code that belongs on it
"""

from functools import cache

from backends.numba_cuda._compiled import SIMULATED, VARIABLE
from harness.device import Recorder, shared
from harness.errors import PluginError, ResourceError

_instead = []


@cache
def machine():
    """The machine of this process, opened when first asked for. Raises ResourceError without a GPU."""
    if _instead:
        return _instead[0]
    if SIMULATED:
        from backends.numba_cuda.simulator.machine import Simulator

        return Simulator(shared("cuda", "numba_cuda", VARIABLE, Recorder, Recorder))
    from backends.numba_cuda._gpu import open_gpu

    return open_gpu()


def planned():
    """The machine of this process or, without a GPU, the one that a plan assumes."""
    try:
        return machine()
    except (PluginError, ResourceError):
        return _Assumed


class _Assumed:
    """What a plan asks of an H100, where there is none: enough to say what memory an op takes."""

    multiprocessors = 132


def use(other):
    """Let another compute from now on: _resources.py's, which only writes down what is launched."""
    _instead[:] = [other]
    machine.cache_clear()
