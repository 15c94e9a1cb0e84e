"""What the kernels of the backend `numba` are made of: exp, bfloat16, tiles, scratch, one pool."""

import ml_dtypes
import numpy as np
import pytest
import threadpoolctl
from numba import njit, prange

from backends.numba_cpu import _scratch, _threads
from backends.numba_cpu._exp import exp
from backends.numba_cpu._kernel import exact, helper
from backends.numba_cpu._narrow import as_bits, narrow, wide
from backends.numba_cpu._products import multiply_nn, multiply_nt, multiply_tn
from backends.numba_cpu._tiles import part, tile
from harness.device import HOST


@njit
def exp_of(out, x):
    for i in range(x.size):
        out[i] = exp(x[i])


@njit
def copy(out, x):
    for i in range(x.size):
        out[i] = narrow(out, wide(x[i]))


def exps(x):
    out = np.empty_like(x)
    exp_of(out, x)
    return out


def test_exp_is_within_two_units_in_the_last_place():
    x = np.random.default_rng(0).uniform(-86.9, 88.7, 1_000_000).astype(np.float32)
    true = np.exp(x.astype(np.float64))
    ulp = np.spacing(true.astype(np.float32)).astype(np.float64)
    assert np.max(np.abs(exps(x) - true) / ulp) <= 2


def test_exp_of_what_is_not_finite_or_overflows():
    x = np.array([-np.inf, np.inf, np.nan, 88.8, -88, 1e30, -1e30, 0, -0.0], np.float32)
    expected = [0, np.inf, np.nan, np.inf, 0, np.inf, 0, 1, 1]
    np.testing.assert_array_equal(exps(x), np.array(expected, np.float32))


def test_every_bfloat16_is_read_as_ml_dtypes_reads_it():
    bits = np.arange(1 << 16).astype(np.uint16)
    out = np.empty(bits.size, np.float32)
    copy(out, bits)
    expected = bits.view(ml_dtypes.bfloat16).astype(np.float32)
    np.testing.assert_array_equal(out, expected)


def test_a_float32_is_rounded_to_bfloat16_as_ml_dtypes_rounds_it():
    rng = np.random.default_rng(1)
    bits = rng.integers(0, 1 << 32, 500_000, np.uint64).astype(np.uint32)
    ties = (np.arange(1 << 16).astype(np.uint32) << 16) | 0x8000
    x = np.concatenate([bits, ties, np.array([0x7F800001], np.uint32)]).view(np.float32)
    out = np.empty(x.size, ml_dtypes.bfloat16)
    copy(as_bits(out), x)
    with np.errstate(invalid="ignore"):
        expected = x.astype(ml_dtypes.bfloat16)
    np.testing.assert_array_equal(out.astype(np.float32), expected.astype(np.float32))


@pytest.mark.parametrize("tasks", [1, 2, 3, 4, 8, 16])
@pytest.mark.parametrize("shape", [(1, 1), (3, 50), (256, 768), (17, 31), (1000, 3)])
def test_the_tiles_cover_a_matrix_once(tasks, shape):
    covered = np.zeros(shape, int)
    for task in range(tasks):
        top, bottom, left, right = tile(*shape, tasks, task)
        covered[top:bottom, left:right] += 1
    assert (covered == 1).all()


def test_the_parts_differ_by_one_at_most():
    sizes = [stop - start for start, stop in (part(11, 4, task) for task in range(4))]
    assert sum(sizes) == 11
    assert max(sizes) - min(sizes) <= 1


PRODUCTS = {
    "nt": (multiply_nt, lambda a, b: a @ b.T, lambda M, K, N: ((M, K), (N, K))),
    "nn": (multiply_nn, lambda a, b: a @ b, lambda M, K, N: ((M, K), (K, N))),
    "tn": (multiply_tn, lambda a, b: a.T @ b, lambda M, K, N: ((K, M), (K, N))),
}


@pytest.mark.parametrize("beta", [0, 1])
@pytest.mark.parametrize("kind", PRODUCTS)
@pytest.mark.parametrize("shape", [(1, 1, 1), (5, 1, 3), (33, 17, 65), (40, 1, 40), (64, 0, 8)])
def test_a_product_of_tiles_is_the_product(kind, shape, beta):
    multiply, formula, operands = PRODUCTS[kind]
    rng = np.random.default_rng(2)
    M, K, N = shape
    # Integers: every order of summation gives the same float32.
    a, b = (rng.integers(-8, 8, s).astype(np.float32) for s in operands(M, K, N))
    out = rng.integers(-8, 8, (M, N)).astype(np.float32)
    expected = formula(a, b) + beta * out
    if not beta:
        out[:] = np.nan
    multiply(out, a, b, np.float32(beta))
    np.testing.assert_array_equal(out, expected)


def test_a_tile_of_wider_arrays_is_multiplied_where_it_lies():
    rng = np.random.default_rng(3)
    a, b = (rng.integers(-8, 8, (9, 30)).astype(np.float32) for _ in range(2))
    out = np.full((9, 20), 7, np.float32)
    multiply_nt(out[:, 4:13], a[:, 10:15], b[:, 20:25])
    np.testing.assert_array_equal(out[:, 4:13], a[:, 10:15] @ b[:, 20:25].T)
    assert (np.delete(out, np.s_[4:13], axis=1) == 7).all()


def test_a_workspace_is_used_and_too_little_of_it_is_refused():
    memory = HOST.empty(_scratch.room((100,), (3, 5)))
    _scratch.lend(memory)
    try:
        first, second = _scratch.scratch((100,), (3, 5))
        assert np.may_share_memory(first, memory)
        assert not np.may_share_memory(first, second)
        assert second.ctypes.data % 128 == 0
        with pytest.raises(AssertionError, match="were planned"):
            _scratch.scratch((200,), (3, 5))
    finally:
        _scratch.lend(None)
    assert not np.may_share_memory(*_scratch.scratch((100,)), memory)


def test_scipys_blas_has_one_thread_and_numpys_keeps_its_own():
    # What ran before in this process may have told every library.
    _threads.use_threads(_threads.threads())
    limits = {
        "numpy" if "numpy" in info["filepath"] else "scipy": info["num_threads"]
        for info in threadpoolctl.threadpool_info()
        if info["user_api"] == "blas"
    }
    if len(limits) < 2:
        pytest.skip("NumPy and SciPy share one BLAS here")
    assert limits["scipy"] == 1
    with threadpoolctl.threadpool_limits(2):
        _threads.use_threads(_threads.threads())
        again = {
            "numpy" if "numpy" in info["filepath"] else "scipy": info["num_threads"]
            for info in threadpoolctl.threadpool_info()
            if info["user_api"] == "blas"
        }
    assert again == {"numpy": 2, "scipy": 1}


@pytest.mark.parametrize("decorate", [helper, exact])
def test_a_helper_is_compiled_into_each_place_that_calls_it(decorate):
    @decorate
    def named_helper(out, x, row):
        for i in range(x.shape[1]):
            if x[row, i] > 1:
                out[row] += np.exp(x[row, i])

    @njit(parallel=True)
    def calls_it(out, x):
        for row in prange(x.shape[0]):
            named_helper(out, x, row)
            named_helper(out, x, row)

    x = np.ones((2, 3), np.float32)
    calls_it(np.zeros(2, np.float32), x)
    (code,) = calls_it.inspect_asm().values()
    functions = [line for line in code.splitlines() if line.endswith("@function")]
    # Else the name is bound to the copy of whichever kernel is loaded first: other bits, by chance.
    assert any("calls_it" in line for line in functions)
    assert not any("named_helper" in line for line in functions)
