import pytest

from harness.machine.peaks import Peaks, Rates
from harness.machine.processor import Machine
from harness.plugins.loading import all_ops


@pytest.fixture(scope="session")
def ops():
    return all_ops()


@pytest.fixture
def machine():
    return Machine("a processor", 2, "Linux x86_64", "2.4.6", "openblas 0.3", "Haswell", "", 2)


@pytest.fixture
def peaks(machine):
    """10 GB/s of copies, 100 GFLOP/s of matmul, 1 MiB of cache."""
    one = Rates(8e9, 40e9, 50e9, 40e9)
    every = Rates(10e9, 30e9, 100e9, 60e9)
    return Peaks(machine, 1 << 20, one, every, "2026-01-01T00:00:00+00:00", 0.1)
