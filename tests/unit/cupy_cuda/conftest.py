"""Kernels of these tests' own, and every order of threads."""

from pathlib import Path

import numpy as np
import pytest

from backends.cupy_cuda._machine import machine
from backends.cupy_cuda.on_cpu.kernels import Kernels, in_every_order

KERNELS = Path(__file__).parent / "kernels"


@pytest.fixture
def kernels():
    """Name of a file of tests/unit/cupy_cuda/kernels -> its Kernels."""
    return lambda name: Kernels(KERNELS / f"{name}.cu")


@pytest.fixture
def same_in_every_order():
    """Run function() -> arrays once for each order of threads and blocks; demand the same bits.

    Called with a machine and a function, or with a function alone: then on the backend's own machine.
    The function copies its inputs anew each time, and returns NumPy arrays.
    """

    def check(*machine_and_function):
        *given, function = machine_and_function
        return in_every_order(given[0] if given else machine(), function)

    return check


@pytest.fixture
def rng():
    return np.random.default_rng(5)
