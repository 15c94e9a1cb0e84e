"""What small cases of conformance do not reach: many chunks, long runs, long rows, a NaN in any thread.

Where a kernel is made for sizes that a simulator takes hours over, its constant is made smaller here.
"""

import numpy as np
import pytest
from numba import config

from backends.numba_cuda import _token_order, embedding, layernorm
from backends.numba_cuda import plugin as ops
from backends.numba_cuda._machine import machine

pytestmark = pytest.mark.skipif(
    not config.ENABLE_CUDASIM, reason="constants of compiled kernels cannot be changed"
)


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def on_device(array):
    array = np.ascontiguousarray(array)
    buffer = machine().view(machine().empty(array.nbytes), 0, array.shape, array.dtype)
    machine().from_host(buffer, array)
    return buffer


def on_host(buffer):
    array = np.empty(buffer.shape, buffer.dtype)
    machine().to_host(array, buffer)
    return array


def unset(*shape):
    """A buffer of float32 that holds NaN."""
    return on_device(np.full(shape, np.nan, np.float32))


@pytest.mark.parametrize("V", [1, 7, 50257])
@pytest.mark.parametrize("N", [64, 65, 300])
def test_rows_are_put_in_the_order_of_their_tokens_and_of_the_text(monkeypatch, rng, N, V):
    monkeypatch.setattr(_token_order, "MAX_CHUNK", 64)
    tokens_BT = rng.integers(0, V, size=(1, N)).astype(np.int32)
    keys_N, sorted_N = (on_device(np.zeros(_token_order.keys_shape(N), np.int64)) for _ in range(2))
    order_N = on_host(_token_order.sort_rows(on_device(tokens_BT), keys_N, sorted_N))[:N]
    np.testing.assert_array_equal(order_N & 0xFFFFFFFF, np.argsort(tokens_BT[0], kind="stable"))
    np.testing.assert_array_equal(order_N >> 32, np.sort(tokens_BT[0]))


@pytest.mark.parametrize("accumulate", [False, True])
@pytest.mark.parametrize("V", [1, 3, 40])
def test_a_token_takes_the_sum_of_its_rows_over_any_number_of_tiles(rng, V, accumulate):
    B, T, C = 3, 67, 5
    assert B * T > 6 * embedding.TILE
    tokens_BT = rng.integers(0, V, size=(B, T)).astype(np.int32)
    dout_BTC = rng.integers(-8, 8, size=(B, T, C)).astype(np.float32)  # sums of these are exact
    start_VC = rng.integers(-8, 8, size=(V + 2, C)).astype(np.float32)
    expected_VC = start_VC.copy() if accumulate else np.zeros_like(start_VC)
    np.add.at(expected_VC, tokens_BT, dout_BTC)
    dwte_VC = on_device(start_VC)
    position_B = on_device(np.zeros(B, np.int32))
    ops.embedding_backward(
        dwte_VC, None, on_device(dout_BTC), on_device(tokens_BT), position_B, accumulate
    )
    np.testing.assert_array_equal(on_host(dwte_VC), expected_VC)


def _layernorm_backward(rng, N, C):
    arrays = [rng.standard_normal(shape).astype(np.float32) for shape in ((N, C), (N, C), C)]
    mean_N, rstd_N = arrays[1].mean(axis=-1), 1 / arrays[1].std(axis=-1)
    out = unset(N, C), unset(C), unset(C)
    ops.layernorm_backward(*out, *map(on_device, (*arrays, mean_N, rstd_N)), False)
    return [on_host(buffer) for buffer in out]


def test_blocks_that_share_the_columns_of_a_row_give_the_bits_of_one_that_has_them_all(monkeypatch):
    whole = _layernorm_backward(np.random.default_rng(0), 19, 77)
    monkeypatch.setattr(layernorm, "COLUMNS", 30)
    parts = _layernorm_backward(np.random.default_rng(0), 19, 77)
    for one, other in zip(whole, parts, strict=True):
        np.testing.assert_array_equal(one, other)


def test_blocks_that_go_over_many_rows_leave_none_out():
    N, C = 250, 3
    assert layernorm._blocks(N) * layernorm.MIN_ROWS < N
    _, _, dbias_C = _layernorm_backward(np.random.default_rng(0), N, C)
    dout_NC = np.random.default_rng(0).standard_normal((N, C)).astype(np.float32)
    np.testing.assert_allclose(
        dbias_C, dout_NC.sum(axis=0), rtol=1e-4, atol=1e-5
    )  # 250 terms that cancel


@pytest.mark.parametrize("column", [0, 31, 32, 65, 511, 530])
def test_a_nan_is_seen_by_its_row_and_by_no_other(rng, column):
    N, V, vocab_size = 3, 540, 531
    logits_NV = rng.standard_normal((N, V)).astype(np.float32)
    logits_NV[1, column] = np.nan
    logits_NV[:, vocab_size:] = np.nan
    logits, targets_N = on_device(logits_NV), on_device(np.array([2, 3, -1], np.int32))
    loss_N, lse_N, probs_NV, dlogits_NV = unset(N), unset(N), unset(N, V), unset(N, V)
    ops.cross_entropy_forward(loss_N, lse_N, logits, targets_N, vocab_size)
    ops.cross_entropy_backward(dlogits_NV, loss_N, logits, lse_N, targets_N, vocab_size)
    ops.softmax_forward(probs_NV, logits, vocab_size)
    lost = np.array([False, True, False])
    np.testing.assert_array_equal(np.isnan(on_host(lse_N)), lost)
    np.testing.assert_array_equal(np.isnan(on_host(loss_N)), lost)
    np.testing.assert_array_equal(np.isnan(on_host(probs_NV))[:, :vocab_size].all(axis=1), lost)
    np.testing.assert_array_equal(np.isnan(on_host(dlogits_NV)).any(axis=1), lost)
    assert not on_host(probs_NV)[:, vocab_size:].any()
    assert not on_host(dlogits_NV)[:, vocab_size:].any()


def test_the_gradient_of_an_ignored_row_is_0_whatever_it_holds():
    N, V = 2, 9
    logits_NV = np.full((N, V), [[np.nan], [np.inf]], np.float32)
    dlogits_NV, nan_N = unset(N, V), on_device(np.full(N, np.nan, np.float32))
    ignored_N = on_device(np.full(N, -1, np.int32))
    ops.cross_entropy_backward(dlogits_NV, nan_N, on_device(logits_NV), nan_N, ignored_N, V)
    assert not on_host(dlogits_NV).any()
