"""Tensor-core products on the CPU, against NumPy, with fragments laid out as the PTX ISA says."""

import ml_dtypes
import numpy as np
import pytest

LANES = np.arange(32)
GROUP, IN_GROUP = LANES >> 2, LANES % 4


def rows_and_columns_of_d():
    """PTX ISA, accumulators of m16n8k16 and m16n8k8: row and column of c0..c3 in each lane."""
    i = np.arange(4)[None, :]
    rows = np.where(i < 2, GROUP[:, None], GROUP[:, None] + 8)
    return rows, IN_GROUP[:, None] * 2 + (i & 1)


def bf16_fragments(a_MK, b_KN):
    """PTX ISA, m16n8k16 with .bf16: elements a0..a7 and b0..b3, two in a register, low half first."""
    i = np.arange(8)[None, :]
    low_row = ((i >= 0) & (i < 2)) | ((i >= 4) & (i < 6))
    rows = np.where(low_row, GROUP[:, None], GROUP[:, None] + 8)
    columns = IN_GROUP[:, None] * 2 + (i & 1) + np.where(i < 4, 0, 8)
    j = np.arange(4)[None, :]
    k = IN_GROUP[:, None] * 2 + (j & 1) + np.where(j < 2, 0, 8)
    halves = [a_MK[rows, columns], b_KN[k, np.broadcast_to(GROUP[:, None], k.shape)]]
    return [np.ascontiguousarray(half).view(np.uint16).view(np.uint32) for half in halves]


def tf32_fragments(a_MK, b_KN):
    """PTX ISA, m16n8k8 with .tf32: a0..a3 and b0, b1, one in a register."""
    rows = np.stack([GROUP, GROUP + 8, GROUP, GROUP + 8], axis=1)
    columns = np.stack([IN_GROUP, IN_GROUP, IN_GROUP + 4, IN_GROUP + 4], axis=1)
    k = np.stack([IN_GROUP, IN_GROUP + 4], axis=1)
    return a_MK[rows, columns], b_KN[k, GROUP[:, None]]


def rounded_to_tf32(x):
    """To a multiple of 2^(exponent - 10), ties away from zero: in double, which holds it exactly."""
    x = np.float64(x)
    _, exponent = np.frexp(x)
    unit = np.exp2(exponent - 11.0)
    return np.copysign(np.floor(np.abs(x) / unit + 0.5) * unit, x)


@pytest.mark.parametrize("order", [0, 1, 2])
def test_a_bf16_product_is_that_of_the_matrices_whose_fragments_the_lanes_hold(kernels, rng, order):
    a_MK = rng.normal(size=(16, 16)).astype(ml_dtypes.bfloat16)
    b_KN = rng.normal(size=(16, 8)).astype(ml_dtypes.bfloat16)
    before_MN = rng.normal(size=(16, 8)).astype(np.float32)
    d = np.ascontiguousarray(before_MN[rows_and_columns_of_d()])
    kernels("mma").run("one_bf16", 1, 32, d, *bf16_fragments(a_MK, b_KN), order=order)
    wanted_MN = before_MN + a_MK.astype(np.float64) @ b_KN.astype(np.float64)
    # float32, sum of 16 terms of about 1
    np.testing.assert_allclose(d, wanted_MN[rows_and_columns_of_d()], rtol=0, atol=1e-5)


@pytest.mark.parametrize("order", [0, 1, 2])
def test_tf32_products_in_a_row_add_up(kernels, rng, order):
    a_MK = rng.normal(size=(16, 8)).astype(np.float32)
    b_KN = rng.normal(size=(8, 8)).astype(np.float32)
    d = np.zeros((32, 4), np.float32)
    fragments = [np.ascontiguousarray(fragment) for fragment in tf32_fragments(a_MK, b_KN)]
    kernels("mma").run("three_tf32", 1, 32, d, *fragments, order=order)
    b_KN = rounded_to_tf32(b_KN)
    wanted_MN = sum(rounded_to_tf32(np.float32(n) * a_MK) @ b_KN for n in (1, 2, 3))
    # float32, sum of 24 terms of up to 10
    np.testing.assert_allclose(d, wanted_MN[rows_and_columns_of_d()], rtol=0, atol=3e-5)


def test_rounding_to_tf32_is_to_nearest_and_ties_go_away_from_zero(kernels, rng):
    x = rng.normal(size=32).astype(np.float32)
    x[:6] = 1 + 2**-11, -1 - 2**-11, 1 + 2**-11 - 2**-20, np.inf, -np.inf, 0
    tf32, pairs = np.zeros(32, np.uint32), np.zeros(32, np.uint32)
    kernels("mma").run("rounded", 1, 32, tf32, pairs, x)
    finite = np.isfinite(x) & (x != 0)
    np.testing.assert_array_equal(tf32.view(np.float32)[finite], rounded_to_tf32(x[finite]))
    np.testing.assert_array_equal(tf32.view(np.float32)[~finite], x[~finite])


def test_a_pair_of_bf16_has_the_first_in_its_low_half(kernels, rng):
    x = rng.normal(size=32).astype(np.float32)
    tf32, pairs = np.zeros(32, np.uint32), np.zeros(32, np.uint32)
    kernels("mma").run("rounded", 1, 32, tf32, pairs, x)
    halves = pairs.view(np.uint16).view(ml_dtypes.bfloat16).reshape(32, 2)
    np.testing.assert_array_equal(halves[:, 0], x.astype(ml_dtypes.bfloat16))
    np.testing.assert_array_equal(halves[:, 1], ml_dtypes.bfloat16(-1.5))
