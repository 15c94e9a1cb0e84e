import math

import ml_dtypes
import numpy as np
import pytest

from harness.conformance.judge import judge_function
from harness.conformance.tolerance import error_in_tolerances, tolerance, u_in
from harness.contract import Magnitude
from harness.errors import PluginError
from harness.plugins import all_ops
from tests.conformance.kernels import matmul, matmul_backward, matmul_tf32, writing_zeros

OPS = all_ops()
PRECISIONS = [("fp32", "f32"), ("tf32", "tf32"), ("bf16", "bf16")]


@pytest.mark.parametrize(
    ("dtype", "arithmetic", "u_out", "rounded"),
    [
        (np.float32, "f32", 2**-24, 0.0),
        (np.float32, "f64", 2**-24, 0.0),
        (np.float32, "tf32", 2**-24, 2**-11),
        (ml_dtypes.bfloat16, "bf16", 2**-8, 2**-8),
        (ml_dtypes.bfloat16, "f32", 2**-8, 0.0),
    ],
)
def test_the_tolerance_is_the_formula_of_the_docs(dtype, arithmetic, u_out, rounded):
    reference, S, n = np.array([3.0, -7.0]), np.array([10.0, 20.0]), 49
    expected = u_out * np.abs(reference) + 2 * rounded * S + 2**-24 * S * (4 + 2 * math.sqrt(n))
    found = tolerance(reference, Magnitude(S, n), dtype, arithmetic)
    assert found == pytest.approx(expected, rel=1e-12)


def test_what_is_accumulated_onto_adds_its_own_magnitude():
    reference, prefill = np.array([1.0]), np.array([-50.0])
    without = tolerance(reference, Magnitude(np.array([2.0]), 1), np.float32, "f32")
    with_it = tolerance(reference, Magnitude(np.array([2.0]), 1), np.float32, "f32", prefill)
    assert with_it - without == pytest.approx(50 * 6 * 2**-24)


def test_an_unknown_arithmetic_is_refused_with_the_nearest():
    with pytest.raises(PluginError, match="tf23") as caught:
        u_in("tf23")
    assert caught.value.facts["nearest"] == "tf32"


@pytest.mark.parametrize(
    ("out", "reference", "ratio"),
    [
        (1.5, 1.0, 0.5),
        (np.nan, 1.0, np.inf),
        (np.inf, 1.0, np.inf),
        (np.nan, np.nan, 0.0),
        (1.0, np.nan, np.inf),
        (np.inf, np.inf, 0.0),
        (-np.inf, np.inf, np.inf),
        (np.nan, np.inf, np.inf),
        (3.0, np.inf, np.inf),
    ],
)
def test_what_is_not_finite_must_be_met_by_the_same(out, reference, ratio):
    found = error_in_tolerances(np.array([out]), np.array([reference]), np.array([1.0]))
    assert found[0] == ratio


def test_a_result_that_must_be_exact_may_not_differ():
    zero = tolerance(np.zeros(1), Magnitude(np.zeros(1), 1), np.float32, "f32")
    assert error_in_tolerances(np.zeros(1), np.zeros(1), zero)[0] == 0
    assert error_in_tolerances(np.array([1e-30]), np.zeros(1), zero)[0] > 1


@pytest.mark.parametrize(("precision", "arithmetic"), PRECISIONS)
@pytest.mark.parametrize("hook", OPS.hooks)
def test_a_kernel_that_writes_zeros_fails_at_every_precision(hook, precision, arithmetic):
    kernel = writing_zeros(OPS.half(hook))
    verdict = judge_function(
        kernel, hook, OPS, precision=precision, computes=arithmetic, stop_after=1
    )
    assert verdict.status == "failed"
    assert verdict.failures[0].law == "value"


@pytest.mark.parametrize(("precision", "arithmetic"), PRECISIONS)
def test_zeros_fail_a_long_sum_too(precision, arithmetic):
    from harness.conformance.cases.case import parse_case

    case = parse_case(f"matmul_forward[N=8,I=768,O=8,normal,seed=0,{precision}]", OPS)
    kernel = writing_zeros(OPS.half("matmul_forward"))
    verdict = judge_function(
        kernel, "matmul_forward", OPS, precision=precision, computes=arithmetic, cases=[case]
    )
    assert verdict.failures[0].ratio > 5


def test_undeclared_tf32_fails_and_declared_tf32_passes():
    undeclared = judge_function(matmul_tf32, "matmul_forward", OPS, waive=["memory"])
    declared = judge_function(matmul_tf32, "matmul_forward", OPS, computes="tf32", waive=["memory"])
    assert undeclared.status == "failed"
    assert "tf32 would be, but f32 is declared" in str(undeclared)
    assert declared.passed, declared


def test_an_honest_matmul_passes_with_room():
    assert judge_function(matmul, "matmul_forward", OPS).worst[0] < 0.5
    verdict = judge_function(matmul_backward, "matmul_backward", OPS, waive=["memory"])
    assert verdict.passed, verdict
    assert 0 < verdict.worst[0] < 0.5
    assert verdict.digits > 5
