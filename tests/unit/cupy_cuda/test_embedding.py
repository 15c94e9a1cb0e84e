"""The sorted sums of the embedding's backward, at sizes of several chunks and tiles.

All numbers are small integers: float32 adds them exactly, so that results are equal or wrong.
"""

import ml_dtypes
import numpy as np
import pytest

from backends.cupy_cuda import _scratch, embedding
from backends.cupy_cuda._machine import machine
from backends.cupy_cuda.embedding import embedding_backward, embedding_forward
from harness.ops import embedding as op

BF16 = np.dtype(ml_dtypes.bfloat16)
B, T = 5, 500  # more tokens than one block sorts


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


def integers(rng, *shape, dtype=np.float32):
    return rng.integers(-8, 9, shape).astype(dtype)


def at(rng, X, T=T, B=B):
    return rng.integers(0, X - T + 1, B).astype(np.int32)


def backward(dout, tokens, position, V, X, held=None):
    """dwte and dwpe; held: what they hold before, where they are added to."""
    before = held or [np.full((rows, dout.shape[-1]), np.nan, np.float32) for rows in (V, X)]
    buffers = [put(table) for table in before]
    embedding_backward(*buffers, put(dout), put(tokens), put(position), held is not None)
    return [get(buffer) for buffer in buffers]


def reference(dout, tokens, position, V, X):
    return op.reference_backward(dout.astype(np.float64), tokens, position, V, X)


def skewed(rng, shape, V):
    """Some tokens very often, most never: as in text."""
    return np.minimum((rng.pareto(0.6, shape) * 3).astype(np.int64), V - 1).astype(np.int32)


N = np.arange(B * T, dtype=np.int32).reshape(B, T)
TOKENS = {
    "skewed": lambda rng: skewed(rng, (B, T), 3000),
    "all equal": lambda rng: np.full_like(N, 2999),
    "all different": lambda rng: rng.permutation(3000).astype(np.int32)[N],
    "two in turn": lambda rng: N % 2,
    "runs as long as tiles": lambda rng: N // embedding.TILE,
    "runs one longer": lambda rng: N // (embedding.TILE + 1),
}


@pytest.mark.parametrize("accumulate", [False, True])
@pytest.mark.parametrize("tokens", TOKENS)
def test_every_row_gets_the_sum_of_its_tokens(rng, tokens, accumulate):
    V, X, C = 3000, 600, 4
    assert B * T > embedding.MAX_CHUNK
    tokens_BT, position = TOKENS[tokens](rng), at(rng, X)
    dout = integers(rng, B, T, C)
    held = [integers(rng, rows, C) for rows in (V, X)] if accumulate else None
    expected = reference(dout, tokens_BT, position, V, X)
    if accumulate:
        expected = [e + h for e, h in zip(expected, held, strict=True)]
    for actual, wanted in zip(
        backward(dout, tokens_BT, position, V, X, held), expected, strict=True
    ):
        np.testing.assert_array_equal(actual, wanted)


@pytest.mark.parametrize("dtype", [np.dtype(np.float32), BF16])
@pytest.mark.parametrize("C", [1, 3, 260, 514, 1028])
def test_any_number_of_columns_is_added_up(rng, C, dtype):
    V, X = 11, 80
    tokens, position = skewed(rng, (3, 70), V), at(rng, X, 70, 3)
    dout = integers(rng, 3, 70, C, dtype=dtype)
    expected = reference(dout, tokens, position, V, X)
    for actual, wanted in zip(backward(dout, tokens, position, V, X), expected, strict=True):
        np.testing.assert_array_equal(actual, wanted)


@pytest.mark.parametrize("count", [1, 31, 32, 33, 64, 65, 2047, 2048, 2049, 4096, 4097])
def test_any_number_of_tokens_is_sorted(rng, count):
    V = 1 << 20
    tokens = np.sort(rng.choice(V, 40, replace=False)).astype(np.int32)
    tokens[-1] = V - 1
    ids = rng.choice(tokens, (1, count))
    dout = integers(rng, 1, count, 1)
    dwte = put(np.full((V, 1), np.nan, np.float32))
    embedding_backward(dwte, None, put(dout), put(ids), put(np.zeros(1, np.int32)), False)
    np.testing.assert_array_equal(get(dwte), op._scatter(dout, ids, V))


def test_rows_of_one_token_are_added_as_they_stand_in_the_text():
    # 2^24 + 1 is no float32: which of these sums comes out shows the order of addition.
    numbers = np.array([2.0**24, 1, 1, -(2.0**24)], np.float32)
    for order in ([0, 1, 2, 3], [1, 2, 0, 3], [3, 1, 0, 2]):
        wanted = np.float32(0)
        for number in numbers[order]:
            wanted = np.float32(wanted + number)
        dout = numbers[order].reshape(1, 4, 1)
        dwte, _ = backward(dout, np.ones((1, 4), np.int32), np.zeros(1, np.int32), 2, 4)
        assert dwte[1, 0] == wanted
        _, dwpe = backward(
            dout.reshape(4, 1, 1), np.zeros((4, 1), np.int32), np.zeros(4, np.int32), 1, 2
        )
        assert dwpe[0, 0] == wanted


def test_the_order_of_threads_changes_no_bit(rng, same_in_every_order):
    V, X, C = 300, 600, 8
    tokens, position = skewed(rng, (B, T), V), at(rng, X)
    dout = rng.normal(size=(B, T, C)).astype(np.float32)
    wte, wpe = (rng.normal(size=(rows, C)).astype(np.float32) for rows in (V, X))

    def both():
        out = put(np.empty((B, T, C), np.float32))
        embedding_forward(out, put(tokens), put(position), put(wte), put(wpe))
        return [get(out), *backward(dout, tokens, position, V, X)]

    same_in_every_order(both)


def test_rows_that_no_token_uses_keep_their_bits_where_gradients_are_added(rng):
    held = [np.full((6, 4), -0.0, np.float32) for _ in range(2)]
    tokens, position = np.full((1, 2), 3, np.int32), np.array([2], np.int32)
    tables = backward(np.ones((1, 2, 4), np.float32), tokens, position, 6, 6, held)
    for table, used in zip(tables, ([3], [2, 3]), strict=True):
        unused = np.delete(table, used, axis=0)
        assert np.signbit(unused).all() and not unused.any()


@pytest.mark.parametrize("tokens", [64, 2500])
def test_the_backward_keeps_to_its_scratch_and_can_be_captured(rng, tokens):
    V, X, C = 50, tokens, 12
    ids, position = skewed(rng, (1, tokens), V), np.zeros(1, np.int32)
    dout = integers(rng, 1, tokens, C)
    tables = [put(np.full((rows, C), np.nan, np.float32)) for rows in (V, X)]
    inputs = [put(array) for array in (dout, ids, position)]
    dims = {"B": 1, "T": tokens, "C": C, "V": V, "X": X}
    nbytes = _scratch.needed("embedding_backward", dims, "fp32", 0)
    before = machine().launches.copy()
    memory = machine().view(machine().empty(nbytes), 0, (nbytes,), np.uint8)
    _scratch.lend(memory)
    try:
        replay = machine().capture([lambda: embedding_backward(*tables, *inputs, False)])
    finally:
        _scratch.lend(None)
    replay()
    for table, expected in zip(tables, reference(dout, ids, position, V, X), strict=True):
        np.testing.assert_array_equal(get(table), expected)
    launched = machine().launches - before
    wanted = ["sort_chunks", "sum_tiles", "join_tiles", "sum_positions"]
    wanted += ["merge_chunks"] if tokens > embedding.MAX_CHUNK else []
    assert launched == dict.fromkeys(wanted, 1)


def test_forward_adds_the_rows_of_both_tables_beyond_the_first_stride(rng):
    # More rows than the grid has warps: 4 x 8 blocks of 8.
    V, X, C = 40, 520, 20
    tokens, position = skewed(rng, (B, T), V), at(rng, X)
    wte, wpe = integers(rng, V, C), integers(rng, X, C)
    out = put(np.full((B, T, C), np.nan, np.float32))
    embedding_forward(out, put(tokens), put(position), put(wte), put(wpe))
    (expected,) = op.reference_forward(tokens, position, wte, wpe)
    np.testing.assert_array_equal(get(out), expected)
