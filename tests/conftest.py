"""Where there is no GPU, the kernels of `cupy` run on the CPU in its place (docs/gpu.md).

And Ctrl-C means something: a shell starts a job in the background with SIGINT ignored, and the commands
that tests interrupt would inherit that.
"""

import ctypes
import os
import signal


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

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
