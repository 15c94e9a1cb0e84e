"""Measure what the device reaches now: a copy larger than its caches, and this backend's own products.

Each is the best of a few rounds after one that warms up. Libraries multiply several times as fast:
beside a backend that calls one, per cent are of its rates. In the simulator the numbers mean nothing.
"""

import ml_dtypes
import numpy as np

from backends.numba_cuda._machine import machine

ROUNDS = 8
COPIED_BYTES, SIMULATED_BYTES = 1 << 30, 1 << 10
SQUARE, SIMULATED_SQUARE = 4096, 8
DRAWN = 1 << 16
"""Numbers that are drawn, and then repeated to fill an array."""


def measure():
    """See `measure_rates` in harness/device/hooks.py."""
    simulated = machine().simulated
    nbytes = SIMULATED_BYTES if simulated else COPIED_BYTES
    size = SIMULATED_SQUARE if simulated else SQUARE
    rates = {"copy_bytes_per_s": 2 * nbytes / _best_s(_copy(nbytes))}
    for precision, dtype in (("fp32", np.float32), ("bf16", ml_dtypes.bfloat16)):
        seconds = _best_s(_product(size, np.dtype(dtype)))
        rates[f"{precision}_flops_per_s"] = 2 * size**3 / seconds
    return rates


def _copy(nbytes):
    from backends.numba_cuda import cast

    source, target = (_array((nbytes // 4,), np.dtype(np.float32)) for _ in range(2))
    return lambda: cast.cast(target, source)


def _product(size, dtype):
    from backends.numba_cuda import matmul

    out, x, weight = (_array((size, size), dtype) for _ in range(3))
    return lambda: matmul.matmul_forward(out, x, weight, None)


def _array(shape, dtype):
    """An array of random numbers: zeros take less power, and so give rates that no run reaches."""
    here = machine()
    array = here.view(here.empty(int(np.prod(shape)) * dtype.itemsize), 0, shape, dtype)
    numbers = np.random.default_rng(0).normal(size=DRAWN).astype(dtype)
    here.from_host(array, np.resize(numbers, shape))
    return array


def _best_s(call):
    call()
    rounds = 1 if machine().simulated else ROUNDS
    return min(machine().device_seconds(call) for _ in range(rounds))
