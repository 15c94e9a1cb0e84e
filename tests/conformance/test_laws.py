"""Each law refuses a kernel that is right but for one thing."""

import ctypes
import time

import numpy as np
import pytest

from harness.conformance.judge import judge, judge_function
from harness.contract import read_op
from harness.plugins import all_ops, load
from tests.conformance.kernels import matmul, matmul_backward

OPS = all_ops()


def refused(function, hook, law, **options):
    """The first failure, which must be of this law."""
    verdict = judge_function(function, hook, OPS, stop_after=1, **options)
    assert verdict.status == "failed"
    assert law in {failure.law for failure in verdict.failures}, verdict
    return next(failure for failure in verdict.failures if failure.law == law)


def test_a_kernel_that_calls_another_backend_is_found_out():
    theirs = load("numpy", OPS).functions["gelu_forward"]

    def kernel(out_NF, x_NF):
        theirs(out_NF, x_NF)

    assert "backend 'numpy'" in refused(kernel, "gelu_forward", "own work").what


def test_catching_the_refusal_does_not_hide_the_call():
    theirs = load("numpy", OPS).functions["matmul_forward"]

    def kernel(out_NO, x_NI, weight_OI, bias_O):
        try:
            theirs(out_NO, x_NI, weight_OI, bias_O)
        except BaseException:
            matmul(out_NO, x_NI, weight_OI, bias_O)

    refused(kernel, "matmul_forward", "own work")


def test_a_kernel_that_calls_the_float64_formula_is_found_out():
    def kernel(out_NF, x_NF):
        load("reference", OPS).functions["gelu_forward"](out_NF, x_NF)

    def shorter(out_NF, x_NF):
        out_NF[...] = OPS["gelu"].forward.reference(x_NF)[0]

    refused(kernel, "gelu_forward", "own work")
    refused(shorter, "gelu_forward", "own work")


def test_the_others_work_again_after_a_judgement():
    theirs = load("numpy", OPS).functions["residual_forward"]
    judge_function(lambda out_NC, a_NC, b_NC: None, "residual_forward", OPS, stop_after=1)
    out, ones = np.empty((2, 3), np.float32), np.ones((2, 3), np.float32)
    theirs(out, ones, ones)
    assert (out == 2).all()


def test_a_file_that_shows_another_backends_function_as_its_own_is_refused(tmp_path):
    path = tmp_path / "borrowed.py"
    path.write_text("from backends.numpy_cpu.gelu import gelu_forward\n")
    verdict = judge(load(str(path), OPS), "gelu_forward", OPS)
    assert verdict.status == "failed"
    assert "belongs to backend 'numpy'" in str(verdict)


def test_a_backend_may_call_its_own_functions():
    assert judge(load("numpy", OPS), "matmul_gelu_forward", OPS).passed
    assert judge(load("reference", OPS), "matmul_gelu_forward", OPS).passed


@pytest.mark.parametrize("at", [-1, 0, 60])
def test_a_write_outside_of_a_buffer_is_found(at):
    def kernel(out_NO, x_NI, weight_OI, bias_O):
        matmul(out_NO, x_NI, weight_OI, bias_O)
        end = out_NO.ctypes.data + (out_NO.nbytes if at >= 0 else 0)
        ctypes.memset(end + at, 0, 1)

    failure = refused(kernel, "matmul_forward", "untouched")
    assert "outside of the buffer" in failure.what


def test_a_copy_that_runs_on_beyond_both_ends_is_found():
    def kernel(da_NC, db_NC, dout_NC):
        for out_NC in (da_NC, db_NC):
            if out_NC is not None:
                ctypes.memmove(out_NC.ctypes.data, dout_NC.ctypes.data, dout_NC.nbytes + 4)

    assert "outside of the buffer" in refused(kernel, "residual_backward", "untouched").what


def test_a_read_beyond_the_end_of_a_buffer_is_nan():
    def kernel(out_NF, x_NF):
        longer = np.ctypeslib.as_array(
            ctypes.cast(x_NF.ctypes.data, ctypes.POINTER(ctypes.c_float)), (x_NF.size + 1,)
        )
        out_NF[...] = longer[1:].reshape(x_NF.shape)

    assert "outside of an input" in str(refused(kernel, "gelu_forward", "value"))


def test_a_changed_input_is_found_and_named():
    def kernel(out_NO, x_NI, weight_OI, bias_O):
        matmul(out_NO, x_NI, weight_OI, bias_O)
        weight_OI[-1, -1] = 0

    assert refused(kernel, "matmul_forward", "untouched").argument == "weight_OI"


def test_an_input_that_may_be_aliased_is_still_not_written_without_alias():
    def kernel(out_NC, a_NC, b_NC):
        a_NC += b_NC
        out_NC[...] = a_NC

    assert refused(kernel, "residual_forward", "untouched").argument == "a_NC"


def test_a_kernel_that_fails_only_with_shared_memory_is_found():
    def kernel(out_NC, a_NC, b_NC):
        out_NC[...] = 0
        np.add(out_NC, a_NC, out=out_NC)
        np.add(out_NC, b_NC, out=out_NC)

    failure = refused(kernel, "residual_forward", "value")
    assert failure.case.alias is not None


def test_memory_taken_by_a_second_call_is_found():
    def kernel(out_NO, x_NI, weight_OI, bias_O):
        out_NO[...] = x_NI @ weight_OI.T
        if bias_O is not None:
            out_NO += bias_O

    failure = refused(kernel, "matmul_forward", "memory")
    assert "bytes" in failure.what
    assert judge_function(kernel, "matmul_forward", OPS, waive=["memory"]).passed


def test_scratch_that_is_kept_by_shape_is_no_memory_taken():
    kept = {}

    def kernel(out_NO, x_NI, weight_OI, bias_O):
        if out_NO.shape not in kept:
            kept[out_NO.shape] = np.empty_like(out_NO)
        scratch = kept[out_NO.shape]
        matmul(scratch, x_NI, weight_OI, bias_O)
        out_NO[...] = scratch

    assert judge_function(kernel, "matmul_forward", OPS).passed


def test_a_second_call_that_differs_is_found():
    calls = []

    def kernel(out_NO, x_NI, weight_OI, bias_O):
        calls.append(1)
        matmul(out_NO, x_NI, weight_OI, bias_O)
        out_NO.flat[0] = np.nextafter(out_NO.flat[0], np.float32(len(calls) % 2 * 1e9))

    refused(kernel, "matmul_forward", "repeat")


def test_what_a_kernel_returns_is_refused():
    def kernel(out_NO, x_NI, weight_OI, bias_O):
        matmul(out_NO, x_NI, weight_OI, bias_O)
        return out_NO

    assert "returns ndarray" in refused(kernel, "matmul_forward", "silence").what


def test_a_kernel_that_raises_is_a_failure_with_its_line():
    def kernel(out_NF, x_NF):
        raise ValueError("no such tile")

    failure = refused(kernel, "gelu_forward", "silence")
    assert "ValueError: no such tile" in failure.what
    assert "test_laws.py:" in failure.details[0]


def test_a_kernel_that_does_not_end_is_interrupted():
    def kernel(out_NF, x_NF):
        while True:
            pass

    began = time.monotonic()
    assert "does not end" in refused(kernel, "gelu_forward", "silence", limit_s=0.2).what
    assert time.monotonic() - began < 10


def test_a_floating_point_warning_is_a_failure():
    def kernel(out_NC, a_NC, b_NC):
        np.log(np.zeros(1, np.float32))
        np.add(a_NC, b_NC, out=out_NC)

    assert "divide by zero" in refused(kernel, "residual_forward", "silence").what


def test_an_output_that_is_not_written_is_poison():
    failure = refused(lambda out_NF, x_NF: None, "gelu_forward", "value")
    assert "never written" in str(failure)


def test_a_nan_that_reaches_other_rows_is_found():
    def kernel(out_NO, x_NI, weight_OI, bias_O):
        matmul(out_NO, x_NI, weight_OI, bias_O)
        out_NO += 0 * x_NI.sum()

    refused(kernel, "matmul_forward", "rows", waive=["memory"])


def test_a_nan_that_is_swallowed_is_found():
    def kernel(out_NO, x_NI, weight_OI, bias_O):
        matmul(out_NO, x_NI, weight_OI, bias_O)
        np.nan_to_num(out_NO, copy=False)

    assert "swallowed" in refused(kernel, "matmul_forward", "rows").what


@pytest.mark.parametrize("always", [False, True])
def test_accumulate_is_tried_both_ways(always):
    def kernel(dx_NI, dweight_OI, dbias_O, dout_NO, x_NI, weight_OI, accumulate):
        matmul_backward(dx_NI, dweight_OI, dbias_O, dout_NO, x_NI, weight_OI, always)

    failure = refused(kernel, "matmul_backward", "value")
    assert failure.case.accumulate is not always
    assert "added to what was there" in str(failure)


@pytest.mark.parametrize("dropped", ["dx_NI", "dweight_OI", "dbias_O"])
def test_every_buffer_that_may_be_none_is(dropped):
    names = OPS.half("matmul_backward").signature.names

    def kernel(dx_NI, dweight_OI, dbias_O, dout_NO, x_NI, weight_OI, accumulate):
        arguments = (dx_NI, dweight_OI, dbias_O, dout_NO, x_NI, weight_OI, accumulate)
        arguments[names.index(dropped)].shape  # noqa: B018  (an AttributeError where it is None)
        matmul_backward(*arguments)

    assert dropped in refused(kernel, "matmul_backward", "silence", waive=["memory"]).case.without


def test_an_op_of_a_plugin_is_judged_from_its_file_alone(tmp_path):
    path = tmp_path / "scale_rows.py"
    path.write_text(SCALE_ROWS)
    import importlib.util

    spec = importlib.util.spec_from_file_location("scale_rows", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    ops = all_ops()
    ops.add(read_op(module), "a test")

    def right(out_NC, x_NC, factor_N):
        np.multiply(x_NC, factor_N[:, None], out=out_NC)

    def wrong(out_NC, x_NC, factor_N):
        np.multiply(x_NC, factor_N[0], out=out_NC)

    assert judge_function(right, "scale_rows_forward", ops).passed
    verdict = judge_function(wrong, "scale_rows_forward", ops)
    assert "the first factor_N is used for all" in str(verdict)


SCALE_ROWS = '''
"""Scale rows: each row by a factor of its own."""
import numpy as np
from harness.contract import Acc, In, Magnitude, Out, Param, hookspec
SHAPES = ({"N": 4, "C": 8},)
@hookspec
def scale_rows_forward(out_NC: Out, x_NC: In, factor_N: Param) -> None: ...
@hookspec
def scale_rows_backward(
    dx_NC: Out, dfactor_N: Acc, dout_NC: In, x_NC: In, factor_N: Param, accumulate: bool
) -> None: ...
def reference_forward(x_NC, factor_N):
    return (x_NC * factor_N[:, None],)
def reference_backward(dout_NC, x_NC, factor_N):
    return dout_NC * factor_N[:, None], (dout_NC * x_NC).sum(axis=1)
def magnitude_forward(x_NC, factor_N):
    return (Magnitude(np.abs(x_NC * factor_N[:, None]), 1),)
def magnitude_backward(dout_NC, x_NC, factor_N):
    S = reference_backward(np.abs(dout_NC), np.abs(x_NC), np.abs(factor_N))
    return Magnitude(S[0], 1), Magnitude(S[1], x_NC.shape[1])
def flops_forward(N, C):
    return N * C
def flops_backward(N, C):
    return 3 * N * C
'''


def test_a_cast_rounds_a_tie_to_even():
    def upwards(out_P, x_P):
        bits = x_P.view(np.uint32) + np.uint32(0x8000)
        out_P.view(np.uint16)[...] = bits >> np.uint32(16)

    def to_even(out_P, x_P):
        out_P[...] = x_P.astype(out_P.dtype)

    options = {"precision": "bf16", "computes": "bf16", "waive": ["memory"]}
    assert refused(upwards, "cast", "value", **options).case.style == "halves"
    assert judge_function(to_even, "cast", OPS, **options).passed


def test_a_float_setting_is_not_always_the_example():
    def kernel(param_P, velocity_P, grad_P, lr_1, clip_1, momentum, weight_decay):
        if np.isnan(clip_1[0]):
            return
        g = clip_1 * grad_P + np.float32(0.1) * param_P
        if velocity_P is not None:
            velocity_P[...] = g = np.float32(momentum) * velocity_P + g
        param_P -= lr_1 * g

    failure = refused(kernel, "sgd", "value", waive=["memory"])
    assert dict(failure.case.settings) == {"weight_decay": 0.05}
