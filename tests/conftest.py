"""Where there is no GPU, the kernels of `cupy` run on the CPU in its place (docs/gpu.md)."""

import ctypes
import os


def gpu_there() -> bool:
    try:
        driver = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return False
    count = ctypes.c_int(0)
    return (
        driver.cuInit(0) == 0
        and driver.cuDeviceGetCount(ctypes.byref(count)) == 0
        and count.value > 0
    )


if "HARNESS_CUDA_ON_CPU" not in os.environ and not gpu_there():
    os.environ["HARNESS_CUDA_ON_CPU"] = "1"
