"""Where there is no GPU, the kernels of `cupy` and `numba_cuda` run on the CPU (docs/gpu.md).

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


if not gpu_there():
    os.environ.setdefault("HARNESS_CUDA_ON_CPU", "1")
    os.environ.setdefault("NUMBA_ENABLE_CUDASIM", "1")  # read as numba is imported

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
