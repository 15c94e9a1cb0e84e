"""Sizes at which a kernel goes piece by piece, which the cases of conformance are too small for."""

import numpy as np
import pytest

from backends.numba_cpu import _scratch, _threads
from backends.numba_cpu.attention import attention_backward, attention_forward
from backends.numba_cpu.attention_decode import attention_decode
from backends.numba_cpu.cross_entropy import cross_entropy_forward
from backends.numba_cpu.matmul_cross_entropy import (
    matmul_cross_entropy_backward,
    matmul_cross_entropy_forward,
)
from harness.ops import attention, cross_entropy, matmul_cross_entropy

CLOSE = 1e-4  # of the largest: float32, and scores of order 10


def poisoned(*shape):
    return np.full(shape, np.nan, np.float32)


def normal(rng, *shape):
    return rng.normal(size=shape).astype(np.float32)


def assert_close(actual, reference):
    assert np.abs(actual - reference).max() < CLOSE * np.abs(reference).max()


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def test_the_sum_of_a_row_is_right_where_its_maximum_rises_from_piece_to_piece(rng):
    N, V, vocab_size = 3, 3000, 2999
    logits = normal(rng, N, V) + np.linspace(0, 30, V, dtype=np.float32)
    targets = np.array([0, 2998, -1], np.int32)
    loss, lse = poisoned(N), poisoned(N)
    cross_entropy_forward(loss, lse, logits, targets, vocab_size)
    for actual, reference in zip(
        (loss, lse),
        cross_entropy.reference_forward(logits.astype(float), targets, vocab_size),
        strict=True,
    ):
        assert_close(actual, reference)


@pytest.mark.parametrize("most", [1, 1 << 20])
def test_the_head_is_right_in_any_number_of_chunks_and_keeps_to_its_bytes(rng, most):
    N, C, V, vocab_size = 70, 8, 3000, 2990
    x, weight, dloss = normal(rng, N, C), normal(rng, V, C), normal(rng, N)
    targets = rng.integers(-1, vocab_size, N).astype(np.int32)
    loss, lse, dx, dweight = poisoned(N), poisoned(N), poisoned(N, C), poisoned(V, C)

    def lent(call, *arguments):
        dims = {"N": N, "C": C, "V": V}
        nbytes = _scratch.needed(call.__name__, dims, "fp32", most)
        assert nbytes <= max(most, 2**20)
        _scratch.lend(_scratch.HOST.empty(nbytes))
        try:
            call(*arguments)
        finally:
            _scratch.lend(None)

    lent(matmul_cross_entropy_forward, loss, lse, x, weight, targets, vocab_size)
    lent(
        matmul_cross_entropy_backward,
        dx,
        dweight,
        dloss,
        x,
        weight,
        lse,
        targets,
        vocab_size,
        False,
    )
    x, weight, dloss = (a.astype(float) for a in (x, weight, dloss))
    of_forward = matmul_cross_entropy.reference_forward(x, weight, targets, vocab_size)
    of_backward = matmul_cross_entropy.reference_backward(
        dloss, x, weight, of_forward[1], targets, vocab_size
    )
    for actual, reference in zip(
        (loss, lse, dx, dweight), (*of_forward, *of_backward), strict=True
    ):
        assert_close(actual, reference)


@pytest.mark.parametrize("heads", [1, 3])
def test_heads_that_two_threads_share_get_all_of_their_gradient(rng, heads):
    if _threads.threads() == 1:
        pytest.skip("with one thread no head is shared")
    shape = (1, 200, heads, 8)
    qkv, dout = normal(rng, 1, 200, 3, heads, 8), normal(rng, *shape)
    out, lse, dqkv = poisoned(*shape), poisoned(1, heads, 200), poisoned(*qkv.shape)
    attention_forward(out, lse, qkv)
    attention_backward(dqkv, dout, qkv, out, lse)
    qkv, dout = qkv.astype(float), dout.astype(float)
    of_forward = attention.reference_forward(qkv)
    assert_close(out, of_forward[0])
    assert_close(lse, of_forward[1])
    assert_close(dqkv, attention.reference_backward(dout, qkv, *of_forward)[0])


@pytest.mark.parametrize("which", ["query", "key", "value"])
def test_a_nan_at_one_position_reaches_that_and_later_ones_only(rng, which):
    T, first = 150, 100
    qkv = normal(rng, 1, T, 3, 1, 8)
    qkv[0, first, ["query", "key", "value"].index(which), 0, 5] = np.nan
    out, lse = poisoned(1, T, 1, 8), poisoned(1, 1, T)
    attention_forward(out, lse, qkv)
    assert np.isfinite(out[0, :first]).all()
    assert np.isnan(out[0, first, 0]).any()
    cache = poisoned(1, T, 1, 8), poisoned(1, T, 1, 8)
    decoded = poisoned(*out.shape)
    attention_decode(decoded, *cache, qkv, np.zeros(1, np.int32))
    np.testing.assert_array_equal(decoded, out)


def test_a_nan_in_the_gradient_of_one_position_reaches_that_and_earlier_ones_only(rng):
    T, last = 150, 100
    qkv, dout = normal(rng, 1, T, 3, 1, 8), normal(rng, 1, T, 1, 8)
    out, lse, dqkv = poisoned(*dout.shape), poisoned(1, 1, T), poisoned(*qkv.shape)
    attention_forward(out, lse, qkv)
    dout[0, last, 0, 5] = np.nan
    attention_backward(dqkv, dout, qkv, out, lse)
    assert np.isfinite(dqkv[0, last + 1 :]).all()
    assert np.isnan(dqkv[0, last, 1:]).any()
