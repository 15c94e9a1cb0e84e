"""Attention where a tile, a piece of a head or a run of keys ends, which conformance seldom meets."""

import numpy as np
import pytest
from numba import config

from backends.numba_cuda._flash import WIDEST, N
from backends.numba_cuda._machine import machine
from backends.numba_cuda.attention import attention_backward, attention_forward
from backends.numba_cuda.attention_decode import RUN, attention_decode
from harness.ops import attention as op
from harness.ops import attention_decode as decode_op

pytestmark = pytest.mark.skipif(
    not config.ENABLE_CUDASIM, reason="kernels are compiled here, for the GPU that is there"
)

CLOSE = 1e-5  # float32: sums of at most a hundred numbers of order 1, and their exponentials
EDGES = [(T, 3) for T in (N - 1, N, N + 1, 2 * N + 1)]
PIECES = [(3, 17), (3, WIDEST), (3, WIDEST + 1), (N + 1, WIDEST + 1)]


def put(array):
    """A copy on the device."""
    here = machine()
    buffer = here.view(here.empty(array.nbytes), 0, array.shape, array.dtype)
    here.from_host(buffer, array)
    return buffer


def get(buffer):
    """A copy on the host."""
    array = np.empty(buffer.shape, buffer.dtype)
    machine().to_host(array, buffer)
    return array


def drawn(rng, *shape):
    return rng.standard_normal(shape).astype(np.float32)


def nothing(*shape):
    return put(np.full(shape, np.nan, np.float32))


@pytest.mark.parametrize(("T", "D"), EDGES + PIECES)
def test_attention_is_right_where_tiles_end(rng, T, D):
    qkv, dout = drawn(rng, 1, T, 3, 1, D), drawn(rng, 1, T, 1, D)
    out, lse, dqkv = nothing(1, T, 1, D), nothing(1, 1, T), nothing(1, T, 3, 1, D)
    attention_forward(out, lse, put(qkv))
    attention_backward(dqkv, put(dout), put(qkv), out, lse)
    wanted = op.reference_forward(qkv.astype(float))
    (wanted_dqkv,) = op.reference_backward(dout.astype(float), qkv.astype(float), *wanted)
    np.testing.assert_allclose(get(out), wanted[0], rtol=CLOSE, atol=CLOSE)
    np.testing.assert_allclose(get(lse), wanted[1], rtol=CLOSE, atol=CLOSE)
    np.testing.assert_allclose(get(dqkv), wanted_dqkv, rtol=CLOSE, atol=CLOSE)


def test_the_largest_score_may_come_in_a_later_tile(rng):
    T = 2 * N + 1
    qkv = drawn(rng, 1, T, 3, 1, 2)
    qkv[0, :, 0], qkv[0, :, 1] = 1, np.arange(T)[:, None, None]
    out, lse = nothing(1, T, 1, 2), nothing(1, 1, T)
    attention_forward(out, lse, put(qkv))
    wanted = op.reference_forward(qkv.astype(float))
    np.testing.assert_allclose(get(lse), wanted[1], rtol=CLOSE)
    np.testing.assert_allclose(get(out), wanted[0], rtol=1e-4, atol=1e-4)  # scores of order 100


@pytest.mark.parametrize("position", [0, RUN - 2, RUN - 1, RUN, 2 * RUN])
def test_one_query_is_right_where_runs_of_keys_end(rng, position):
    _decode(rng, 1, np.array([position, 3], np.int32), 2 * RUN + 1)


@pytest.mark.parametrize("before", [0, N - 1, N])
def test_many_queries_are_right_where_tiles_end(rng, before):
    _decode(rng, 5, np.array([before, 3], np.int32), before + 9)


def _decode(rng, T, position, X):
    B, H, D = len(position), 1, 3
    keys, values = drawn(rng, B, X, H, D), drawn(rng, B, X, H, D)
    beyond = decode_op.never_read(position, B, T, X)["keys_BXHD"]
    keys[beyond], values[beyond] = np.nan, np.nan
    qkv, out = drawn(rng, B, T, 3, H, D), nothing(B, T, H, D)
    places = put(keys), put(values)
    attention_decode(out, *places, put(qkv), put(position))
    arrays = (array.astype(float) for array in (keys, values, qkv))
    wanted = decode_op.reference_forward(*arrays, position)
    np.testing.assert_allclose(get(out), wanted[0], rtol=CLOSE, atol=CLOSE)
    for place, array in zip(places, wanted[1:], strict=True):
        np.testing.assert_array_equal(get(place), array)
