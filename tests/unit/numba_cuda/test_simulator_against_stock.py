"""Numba's own scheduler is the referee: the same bits, kernel by kernel, in every order of ours.

Run as a script, this writes what each of the kernels says in the mode that the environment names.
"""

import os
import subprocess
import sys

import numpy as np
import pytest
from numba import config, cuda, float32, int32

pytestmark = pytest.mark.skipif(
    not config.ENABLE_CUDASIM, reason="kernels are compiled here, for the GPU that is there"
)


@cuda.jit(device=True)
def _sum(mine, partial):
    t = cuda.threadIdx.x
    partial[t] = mine
    cuda.syncthreads()
    half = cuda.blockDim.x // 2
    while half:
        if t < half:
            partial[t] += partial[t + half]
        cuda.syncthreads()
        half //= 2
    total = partial[0]
    cuda.syncthreads()
    return total


@cuda.jit
def _normalised(out_NC, x_NC):
    partial = cuda.shared.array(8, float32)
    n, C = cuda.blockIdx.x, x_NC.shape[1]
    largest = float32(0)
    for c in range(cuda.threadIdx.x, C, cuda.blockDim.x):
        largest += x_NC[n, c] * x_NC[n, c]
    norm = np.sqrt(_sum(largest, partial))
    for c in range(cuda.threadIdx.x, C, cuda.blockDim.x):
        out_NC[n, c] = x_NC[n, c] / norm


@cuda.jit
def _product(out_NO, x_NI, w_IO):
    x = cuda.shared.array((4, 4), float32)
    w = cuda.shared.array((4, 4), float32)
    o, n = cuda.grid(2)
    s, t = cuda.threadIdx.x, cuda.threadIdx.y
    total = float32(0)
    for i in range(0, x_NI.shape[1], 4):
        x[t, s] = x_NI[n, i + s]
        w[t, s] = w_IO[i + t, o]
        cuda.syncthreads()
        for k in range(4):
            total += x[t, k] * w[k, s]
        cuda.syncthreads()
    out_NO[n, o] = total


@cuda.jit
def _counting(out_N, x_N, most_1):
    seen = cuda.shared.array(1, int32)
    i = cuda.grid(1)
    if cuda.threadIdx.x == 0:
        seen[0] = 0
    cuda.syncthreads()
    cuda.atomic.add(seen, 0, x_N[i] > 0)
    cuda.atomic.max(most_1, 0, x_N[i])
    positive = cuda.syncthreads_count(x_N[i] > 0)
    out_N[i] = 100 * seen[0] + 10 * positive + cuda.syncthreads_or(x_N[i] > 2)


@cuda.jit
def _over_the_grid(out_N, between_N):
    i = cuda.grid(1)
    between_N[i] = i * i
    cuda.cg.this_grid().sync()
    out_N[i] = between_N[(i + 1) % out_N.size] + cuda.laneid


def outputs():
    """What every kernel writes, as NumPy arrays."""
    from backends.numba_cuda._machine import machine
    from backends.numba_cuda.gelu import gelu_backward, gelu_forward
    from backends.numba_cuda.layernorm import layernorm_forward

    machine()
    random = np.random.default_rng(0)
    x_NC = random.normal(size=(3, 13)).astype(np.float32)
    out = {"normalised": np.zeros_like(x_NC)}
    _normalised[3, 8](out["normalised"], x_NC)

    out["product"] = np.zeros((8, 12), np.float32)
    x_NI, w_IO = (random.normal(size=shape).astype(np.float32) for shape in [(8, 16), (16, 12)])
    _product[(3, 2), (4, 4)](out["product"], x_NI, w_IO)

    out["counting"], out["most"] = np.zeros(12, np.int32), np.zeros(1, np.int32)
    _counting[3, 4](out["counting"], random.integers(-4, 5, 12).astype(np.int32), out["most"])

    out["over_the_grid"] = np.zeros(8, np.int32)
    _over_the_grid[1, 8](out["over_the_grid"], np.zeros(8, np.int32))

    def device(*shape):
        return cuda.to_device(random.normal(size=shape).astype(np.float32))

    for name, op, arrays, rest in (
        ("gelu_forward", gelu_forward, [device(1, 9), device(1, 9)], []),
        ("gelu_backward", gelu_backward, [device(1, 9), device(1, 9), device(1, 9)], []),
        (
            "layernorm_forward",
            layernorm_forward,
            [device(2, 5), device(2), device(2), device(2, 5), device(5), device(5)],
            [1e-5],
        ),
    ):
        op(*arrays, *rest)
        for i, array in enumerate(arrays):
            out[f"{name} {i}"] = array.copy_to_host()
    return out


@pytest.fixture(scope="module")
def stock(tmp_path_factory):
    path = tmp_path_factory.mktemp("stock") / "outputs.npz"
    environment = {**os.environ, "HARNESS_CUDASIM": "stock", "NUMBA_ENABLE_CUDASIM": "1"}
    subprocess.run(
        [sys.executable, "-W", "ignore", __file__, path], env=environment, check=True, timeout=120
    )
    return dict(np.load(path))


@pytest.mark.parametrize("mode", ["first", "reversed", "shuffled", "shuffled:3", "races"])
def test_every_kernel_says_the_same_bits_as_in_the_stock_simulator(mode, stock, monkeypatch):
    from backends.numba_cuda.simulator import blocks

    monkeypatch.setenv("HARNESS_CUDASIM", mode)
    blocks.install()
    ours = outputs()
    assert set(ours) == set(stock) - {"scheduler"}
    assert str(stock["scheduler"]) == "numba.cuda.simulator.kernel"
    different = [name for name in ours if ours[name].tobytes() != stock[name].tobytes()]
    assert different == []


if __name__ == "__main__":
    from numba.cuda.simulator import kernel

    said = outputs()
    np.savez(sys.argv[1], scheduler=kernel.BlockManager.__module__, **said)
