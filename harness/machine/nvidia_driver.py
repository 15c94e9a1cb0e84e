"""Ask the NVIDIA driver what GPUs there are: through its own library, without CuPy or a context."""

import ctypes
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

LIBRARIES = ("libcuda.so.1", "libcuda.dylib", "nvcuda.dll")
VERSION_FILE = Path("/proc/driver/nvidia/version")
CPU_VARIABLES = ("HARNESS_CUDA_ON_CPU", "NUMBA_ENABLE_CUDASIM")
"""Where one of these is set, kernels run on the CPU, whatever GPU there may be."""

ATTRIBUTES = {  # CUdevice_attribute, by cuda.h
    "major": 75,
    "minor": 76,
    "multiprocessors": 16,
    "l2_bytes": 38,
    "clock_khz": 13,
    "memory_clock_khz": 36,
}


@dataclass(frozen=True)
class Gpu:
    """One GPU. cuda: the newest that the driver knows, 12.4. clock_khz: the most it may run at."""

    name: str
    driver: str
    cuda: str
    memory_bytes: int
    major: int
    minor: int
    multiprocessors: int
    l2_bytes: int
    clock_khz: int
    memory_clock_khz: int

    @property
    def slug(self) -> str:
        """The name as a part of a file's name: nvidia-h100-80gb-hbm3."""
        return "-".join("".join(c if c.isalnum() else " " for c in self.name.lower()).split())

    def record(self) -> dict[str, Any]:
        return asdict(self)


def gpus() -> tuple[list[Gpu], str]:
    """The GPUs that this process may use, and why there are none where there are none."""
    driver = _library()
    if driver is None:
        return [], f"no driver: none of {', '.join(LIBRARIES)} can be loaded"
    code = driver.cuInit(0)
    if code != 0:
        return [], f"the driver does not start: cuInit says {code}"
    count = ctypes.c_int(0)
    driver.cuDeviceGetCount(ctypes.byref(count))
    if count.value < 1:
        return [], "the driver sees no device (CUDA_VISIBLE_DEVICES?)"
    return [_gpu(driver, ordinal) for ordinal in range(count.value)], ""


def computed_on_cpu() -> str:
    """The setting by which kernels run on the CPU in the GPU's place; empty where there is none."""
    found = [f"{name}={os.environ[name]}" for name in CPU_VARIABLES if _is_set(name)]
    return " ".join(found)


def _is_set(name: str) -> bool:
    return os.environ.get(name, "") not in ("", "0")


def _library() -> Any:
    for name in LIBRARIES:
        try:
            return ctypes.CDLL(name)
        except OSError:
            continue
    return None


def _gpu(driver: Any, ordinal: int) -> Gpu:
    device, version = ctypes.c_int(0), ctypes.c_int(0)
    name, memory = ctypes.create_string_buffer(256), ctypes.c_size_t(0)
    driver.cuDeviceGet(ctypes.byref(device), ordinal)
    driver.cuDeviceGetName(name, len(name), device)
    driver.cuDeviceTotalMem_v2(ctypes.byref(memory), device)
    driver.cuDriverGetVersion(ctypes.byref(version))
    return Gpu(
        name=name.value.decode("utf-8", "replace"),
        driver=_driver_version(),
        cuda=f"{version.value // 1000}.{version.value % 1000 // 10}",
        memory_bytes=memory.value,
        **{key: _attribute(driver, device, number) for key, number in ATTRIBUTES.items()},
    )


def _attribute(driver: Any, device: ctypes.c_int, number: int) -> int:
    value = ctypes.c_int(0)
    driver.cuDeviceGetAttribute(ctypes.byref(value), number, device)
    return value.value


def _driver_version() -> str:
    """The driver's own version, 550.54.15, where the system tells it."""
    try:
        words = VERSION_FILE.read_text().partition("\n")[0].split()
    except OSError:
        return "unknown"
    return next((w for w in words if w.count(".") >= 1 and w.replace(".", "").isdigit()), "unknown")
