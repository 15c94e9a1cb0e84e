"""Measure what the device reaches now: a copy larger than its caches, and large matrix products.

Through the ops themselves, each the best of a few rounds after one that warms up: a peak is what the
machine can do. On the CPU in the GPU's place the arrays are small, and the numbers mean nothing.
"""

import numpy as np

from backends.cupy_cuda._launch import BFLOAT16
from backends.cupy_cuda._machine import machine, on_cpu

ROUNDS = 8
COPIED_BYTES = 1 << 30
SQUARE = 8192
DRAWN = 1 << 16
"""Numbers that are drawn, and then repeated to fill an array."""


def measure():
    """See `measure_rates` in harness/device/hooks.py; `cache_bytes`: size of the second-level cache."""
    from backends.cupy_cuda import matmul

    size, nbytes = (128, 1 << 20) if on_cpu() else (SQUARE, COPIED_BYTES)
    rates = {"copy_bytes_per_s": 2 * nbytes / _best_s(_copy(nbytes))}
    for precision, dtype, forward in (
        ("fp32", np.float32, matmul.matmul_forward),
        ("tf32", np.float32, matmul.matmul_forward_tf32),
        ("bf16", BFLOAT16, matmul.matmul_forward),
    ):
        seconds = _best_s(_product(forward, size, np.dtype(dtype)))
        rates[f"{precision}_flops_per_s"] = 2 * size**3 / seconds
    return {**rates, "cache_bytes": float(machine().cache_bytes)}


def _copy(nbytes):
    from backends.cupy_cuda import cast

    source, target = (_array((nbytes // 4,), np.dtype(np.float32)) for _ in range(2))
    return lambda: cast.cast(target, source)


def _product(forward, size, dtype):
    out, x, weight = (_array((size, size), dtype) for _ in range(3))
    return lambda: forward(out, x, weight, None)


def _array(shape, dtype):
    """An array of random numbers: zeros take less power, and so give rates that no run reaches."""
    here = machine()
    array = here.view(here.empty(int(np.prod(shape)) * dtype.itemsize), 0, shape, dtype)
    numbers = np.random.default_rng(0).normal(size=DRAWN).astype(dtype)
    here.from_host(array, np.resize(numbers, shape))
    return array


def _best_s(call):
    call()
    return min(machine().device_seconds(call) for _ in range(ROUNDS))
