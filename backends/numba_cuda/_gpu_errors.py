"""What can be missing on the way to a GPU, each as one error that says what to do.

numba-cuda, a driver, one that is new enough, a GPU, one that is new enough, memory.
"""

from importlib.util import find_spec

from harness.device.gpu import (
    EXTRAS,
    MIN_CAPABILITY,
    NO_DRIVER,
    NONE_SEEN,
    dotted,
    gpu_too_old,
    no_gpu,
    precision_needs_newer_gpu,
)
from harness.errors import PluginError, ResourceError

MIN_CAPABILITY_FOR_BF16 = (8, 0)
"""The A100 is the first that rounds to bfloat16 by itself, as `narrow` asks it to."""

MIN_CUDA = 12000
"""Of the driver: what cuda.bindings asks of it."""

WITHOUT = (
    "NUMBA_ENABLE_CUDASIM=1 runs the same kernels in Numba's simulator, for tests; "
    "backend=numba trains on the CPU"
)


def checked_numba_cuda():
    """(numba.cuda, cuda.bindings.driver), once there is a driver and a GPU that they can use."""
    if find_spec("numba_cuda") is None:
        # numba has a `numba.cuda` of its own, which is no longer kept.
        raise library_missing("there is no module numba_cuda")
    try:
        from cuda.bindings import driver
        from numba import cuda
    except ImportError as error:
        raise library_missing(error) from error
    check_driver(driver)
    return cuda, driver


def library_missing(reason):
    return PluginError(
        "backend 'numba_cuda' needs numba-cuda with its compiler, which is not installed",
        slug="library-missing",
        reason=reason,
        do=f"{EXTRAS}\n{WITHOUT}",
    )


def check_driver(driver):
    """Raise ResourceError where the driver or the GPU will not do. driver: cuda.bindings.driver."""
    try:
        code, version = driver.cuDriverGetVersion()
    except RuntimeError as error:  # it looks for libcuda at its first call
        raise _no_gpu(NO_DRIVER) from error
    if code == driver.CUresult.CUDA_SUCCESS and version < MIN_CUDA:
        raise ResourceError(
            "backend 'numba_cuda': the NVIDIA driver is too old",
            slug="driver-too-old",
            expected=f"a driver of CUDA {dotted(MIN_CUDA)} or later",
            found=f"one of CUDA {dotted(version)}",
            do=f"a newer driver; or {WITHOUT}",
        )
    (code,) = driver.cuInit(0)
    if code == driver.CUresult.CUDA_SUCCESS:
        code, count = driver.cuDeviceGetCount()
        if code == driver.CUresult.CUDA_SUCCESS and count > 0:
            return
    if code in (driver.CUresult.CUDA_SUCCESS, driver.CUresult.CUDA_ERROR_NO_DEVICE):
        raise _no_gpu(NONE_SEEN)
    raise _no_gpu(f"the driver says {code.name}")


def check_device(name, capability):
    """Raise ResourceError where a GPU is too old."""
    if capability < MIN_CAPABILITY:
        raise gpu_too_old("numba_cuda", name, capability, WITHOUT)


def check_precision(name, capability, precision):
    """Raise ConfigError where a GPU cannot round to bfloat16."""
    if precision == "bf16" and capability < MIN_CAPABILITY_FOR_BF16:
        raise precision_needs_newer_gpu(precision, MIN_CAPABILITY_FOR_BF16, name, capability)


def _no_gpu(reason):
    return no_gpu("numba_cuda", reason, WITHOUT)
