"""CuPy's runtime as far as the backend asks it, with whatever driver and GPU a test wants."""

from types import SimpleNamespace


class CUDARuntimeError(RuntimeError):
    def __init__(self, status: int) -> None:
        super().__init__(f"cuda error {status}")
        self.status = status


class FakeRuntime:
    """driver, runtime: versions as CUDA counts them, 12090 for 12.9; 0 is no driver."""

    CUDARuntimeError = CUDARuntimeError

    def __init__(
        self, *, driver=12090, runtime=12090, gpus=1, capability=(9, 0), name="NVIDIA H100"
    ):
        self.driver, self.runtime, self.gpus = driver, runtime, gpus
        self.capability, self.name = capability, name

    def getDeviceCount(self):  # noqa: N802  (CuPy's names)
        if self.driver < self.runtime:
            raise CUDARuntimeError(35)
        if self.gpus == 0:
            raise CUDARuntimeError(100)
        return self.gpus

    def driverGetVersion(self):  # noqa: N802
        return self.driver

    def runtimeGetVersion(self):  # noqa: N802
        return self.runtime

    def getDevice(self):  # noqa: N802
        return 0

    def getDeviceProperties(self, number):  # noqa: N802
        major, minor = self.capability
        return {
            "name": self.name.encode(),
            "major": major,
            "minor": minor,
            "multiProcessorCount": 132,
            "l2CacheSize": 50 << 20,
        }


def missing(*names):
    """An import_module that does not find these."""
    from importlib import import_module

    def find(name):
        if name in names:
            raise ImportError(f"No module named '{name}'")
        return SimpleNamespace(get_version=lambda: 0) if name != "json" else import_module(name)

    return find
