"""What can be missing on the way to a GPU, each as one error that says what to do.

CuPy, a driver, one that is new enough, a GPU, one that is new enough, a library, memory.
"""

from importlib import import_module

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

MIN_CAPABILITY_FOR = {"tf32": (8, 0), "bf16": (8, 0)}
"""Tensor cores take these from the A100 on."""

INSUFFICIENT_DRIVER, NO_DEVICE = 35, 100  # of cudaError

WITHOUT = (
    "backend=numba trains on the CPU; for tests, HARNESS_CUDA_ON_CPU=1 runs these kernels there"
)

LIBRARIES = {
    "cublaslt": ("nvmath.bindings.cublasLt", "nvmath-python", "cupy.matmul=cublas"),
    "cublas": ("cupy_backends.cuda.libs.cublas", "nvidia-cublas", "cupy.matmul=cublaslt"),
    "cudnn": ("cudnn", "nvidia-cudnn-frontend", "cupy.attention=flash"),
}
"""Library -> its module, the package that has it, and the setting that does without it."""


def checked_cupy():
    """CuPy, once there is a driver and a GPU that it can use."""
    try:
        import cupy
    except ImportError as error:
        raise PluginError(
            "backend 'cupy' needs CuPy, which is not installed",
            slug="library-missing",
            reason=error,
            do=f"{EXTRAS}\n{WITHOUT}",
        ) from error
    check_runtime(cupy.cuda.runtime)
    return cupy


def check_runtime(runtime):
    """Raise ResourceError where the driver or the GPU will not do. runtime: cupy.cuda.runtime."""
    try:
        count = runtime.getDeviceCount()
    except runtime.CUDARuntimeError as error:
        raise _no_devices(runtime, error) from error
    if count == 0:
        raise _no_gpu(NONE_SEEN)
    properties = runtime.getDeviceProperties(runtime.getDevice())
    capability = properties["major"], properties["minor"]
    if capability < MIN_CAPABILITY:
        raise gpu_too_old("cupy", properties["name"].decode(), capability, WITHOUT)


def _no_devices(runtime, error):
    driver = runtime.driverGetVersion()
    if driver == 0:
        return _no_gpu(NO_DRIVER)
    if error.status == INSUFFICIENT_DRIVER:
        return ResourceError(
            "backend 'cupy': the NVIDIA driver is too old for this CUDA",
            slug="driver-too-old",
            expected=f"a driver of CUDA {dotted(runtime.runtimeGetVersion())} or later",
            found=f"one of CUDA {dotted(driver)}",
            do='a newer driver, or an older CUDA: pip install "gpt2-harness[cuda12]"',
        )
    if error.status == NO_DEVICE:
        return _no_gpu(NONE_SEEN)
    return _no_gpu(str(error))


def _no_gpu(reason):
    return no_gpu("cupy", reason, WITHOUT)


def check_precision(name, capability, precision):
    """Raise ConfigError where a GPU has no arithmetic for a precision."""
    least = MIN_CAPABILITY_FOR.get(precision, MIN_CAPABILITY)
    if capability < least:
        raise precision_needs_newer_gpu(precision, least, name, capability)


def library(name):
    """The module of a library. Raises PluginError where it is not there, and names the other way."""
    module, package, otherwise = LIBRARIES[name]
    try:
        if name == "cublas":
            import_module("cupy.cublas")  # finds libcublas among the installed wheels
        found = import_module(module)
        if name == "cublaslt":
            found.get_version()  # loads the library itself
        return found
    except Exception as error:  # nvmath and cudnn raise errors of their own where a file is missing
        raise PluginError(
            f"backend 'cupy' needs {name}, which is not there",
            slug="library-missing",
            reason=f"{type(error).__name__}: {error}",
            do=f"{otherwise}, or install {package}: {EXTRAS}",
        ) from error


def no_kernel(source, name, reason):
    return PluginError(
        f"{source.name}.cu has no kernel called '{name}'",
        slug="kernel-missing",
        reason=reason,
        do=f'extern "C" __global__ void {name}(...), spelled as in launch("{name}", ...)',
    )


def little_shared_memory(gpu, name, nbytes):
    return ResourceError(
        f"{gpu.name} has too little shared memory for {name}",
        slug="shared-memory-too-small",
        expected=f"{nbytes:,} bytes for a block",
        found=f"{gpu.shared_bytes:,}",
        do="heads of at most 64 channels, or a GPU of compute capability 8.0 or 9.0",
    )
