"""Choose what computes: the GPU, through CuPy, or the CPU in its place where HARNESS_CUDA_ON_CPU=1.

A machine has memory, one stream, kernels and libraries. The two of them, `_gpu.Gpu` and
`on_cpu.machine.Cpu`, have these members, and the ops use nothing else:

    name, capability (major, minor), multiprocessors, shared_bytes      what it is
    empty, view, adapt, from_host, to_host, begin_read, zero,           the device hooks, as in
    synchronize, capture, free_bytes                                    harness/device/hooks.py
    function(source, name, defines) -> launch(grid, block, arguments, shared_bytes)
    library(name)      `cublaslt`, `cublas`, `cudnn`: a module with the library's own functions
    call(function)     run host code that belongs on the stream: a library's call
    stream             the stream's address, for libraries

An array has shape, dtype, size, nbytes, reshape and data.ptr, which is where it lies.
"""

import os
from functools import cache
from importlib import import_module

from backends.cupy_cuda._options import VARIABLE
from harness.device import Recorder, shared
from harness.errors import PluginError, ResourceError


@cache
def machine():
    """The machine of this process, opened when first asked for. Raises ResourceError without a GPU."""
    if on_cpu():
        from backends.cupy_cuda.on_cpu.machine import Cpu

        return Cpu(shared("cuda", "cupy", VARIABLE, Recorder, Recorder))
    from backends.cupy_cuda._gpu import open_gpu

    return open_gpu()


def planned():
    """The machine of this process or, without a GPU, the one that a plan assumes."""
    try:
        return machine()
    except (PluginError, ResourceError):
        return ASSUMED


class _Assumed:
    """What a plan asks of an H100, where there is none: enough to say what memory an op takes."""

    multiprocessors = 132
    stream = 0

    def library(self, name):
        return import_module(f"backends.cupy_cuda.on_cpu.{name}")


ASSUMED = _Assumed()


def on_cpu():
    """Whether kernels run on the CPU in the GPU's place."""
    return os.environ.get(VARIABLE, "") not in ("", "0")
