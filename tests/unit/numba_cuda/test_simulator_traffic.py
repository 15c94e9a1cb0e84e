"""counted() says what kernels load and store: the referee is what is counted by hand from the source."""

import numpy as np
import pytest
from numba import config, cuda, float32

from backends.numba_cuda import counted

pytestmark = pytest.mark.skipif(
    not config.ENABLE_CUDASIM, reason="kernels are compiled here, for the GPU that is there"
)


@pytest.fixture(params=["first", "shuffled", "races"], autouse=True)
def order(request, monkeypatch):
    monkeypatch.setenv("HARNESS_CUDASIM", request.param)


@cuda.jit
def _sums(out_N, x_NC, weight_C):
    partial = cuda.shared.array(4, float32)
    n, t = cuda.blockIdx.x, cuda.threadIdx.x
    total = float32(0)
    for c in range(t, x_NC.shape[1], 4):
        total += x_NC[n, c] * weight_C[c]
    partial[t] = total
    cuda.syncthreads()
    if t == 0:
        out_N[n] = partial[0] + partial[1] + partial[2] + partial[3]


def test_loads_and_stores_are_counted_by_argument_kernel_and_memory():
    x_NC = np.ones((3, 10), np.float32)
    with counted() as traffic:
        _sums[3, 4](np.zeros(3), x_NC, np.ones(10, np.float16))
    assert traffic.loads == {"x_NC": 30, "weight_C": 30}
    assert traffic.stores == {"out_N": 3}
    assert (traffic.loaded_bytes, traffic.stored_bytes) == (30 * 4 + 30 * 2, 3 * 8)
    assert traffic.shared.loads == {"partial": 12}
    assert traffic.shared.stores == {"partial": 12}
    assert (traffic.shared.loaded_bytes, traffic.shared.stored_bytes) == (48, 48)
    assert list(traffic.kernels) == ["_sums"]
    assert traffic.kernels["_sums"].loads == traffic.loads
    assert traffic.kernels["_sums"].loaded_bytes == traffic.loaded_bytes


@cuda.jit(device=True)
def _twice(values):
    return values[cuda.threadIdx.x] + values[cuda.threadIdx.x]


@cuda.jit
def _through_a_function(out_N, x_NC):
    row = x_NC[1]
    out_N[cuda.threadIdx.x] += _twice(row)


def test_what_a_device_function_loads_from_a_part_is_the_arguments():
    with counted() as traffic:
        _through_a_function[1, 2](np.zeros(2), np.zeros((2, 2)))
    assert traffic.loads == {"x_NC": 4, "out_N": 2}
    assert traffic.stores == {"out_N": 2}


@cuda.jit
def _at_once(x_NC, sum_1):
    if cuda.threadIdx.x == 0:
        x_NC[0, :] = 1
    cuda.atomic.add(sum_1, 0, 2)


def test_a_slice_is_its_elements_and_an_atomic_operation_a_load_and_a_store():
    with counted() as traffic:
        _at_once[1, 2](np.zeros((2, 5), np.float32), np.zeros(1, np.int32))
    assert traffic.stores == {"x_NC": 5, "sum_1": 2}
    assert traffic.loads == {"sum_1": 2}
    assert (traffic.loaded_bytes, traffic.stored_bytes) == (8, 28)


def test_launches_add_up_while_the_with_is_open_and_nothing_is_counted_outside():
    def launch():
        _at_once[1, 1](np.zeros((1, 3)), np.zeros(1))

    launch()
    with counted() as outer:
        launch()
        with counted() as inner:
            launch()
    launch()
    assert (outer.stores["x_NC"], inner.stores["x_NC"]) == (6, 3)


def test_an_error_of_a_kernel_ends_the_counting():
    with pytest.raises(IndexError), counted() as traffic:
        _through_a_function[1, 3](np.zeros(2), np.zeros((2, 2)))
    before = dict(traffic.loads)
    _through_a_function[1, 2](np.zeros(2), np.zeros((2, 2)))
    assert traffic.loads == before


def test_traffic_prints_as_a_table():
    with counted() as traffic:
        _sums[3, 4](np.zeros(3), np.ones((3, 1000), np.float32), np.ones(1000, np.float32))
    assert str(traffic).splitlines() == [
        "x_NC             3,000 loads             0 stores",
        "weight_C         3,000 loads             0 stores",
        "out_N                0 loads             3 stores",
        "24,000 bytes loaded, 24 bytes stored",
    ]


def test_an_op_of_the_backend_is_counted():
    from backends.numba_cuda.gelu import gelu_forward

    x_NF = cuda.to_device(np.ones((5, 7), np.float32))
    out_NF = cuda.device_array_like(x_NF)
    with counted() as traffic:
        gelu_forward(out_NF, x_NF)
    assert (traffic.loaded_bytes, traffic.stored_bytes) == (5 * 7 * 4, 5 * 7 * 4)
