"""A program is recorded once, without data; shapes are checked as it is."""

import numpy as np
import pytest

from harness.errors import ConfigError
from harness.graph.program import Program, expand


@pytest.fixture
def program(ops):
    return Program(ops)


def ones(rng, shape):
    return np.ones(shape, np.float32)


def test_every_op_is_a_method_that_returns_its_results(program):
    x = program.input("x", (2, 3, 4), "float32")
    weight, bias = (program.parameter(name, (4,), ones) for name in ("weight", "bias"))
    out = program.layernorm(x, weight, bias, 1e-5)
    assert out.shape == (6, 4)  # leading dimensions have merged
    assert [call.hook for call in program.calls] == ["layernorm_forward"]
    (call,) = program.calls
    assert [tensor.shape for _, tensor in call.written] == [(6, 4), (6,), (6,)]


def test_an_op_without_an_out_returns_its_first_statistic(program):
    logits = program.input("logits", (2, 8), "float32")
    loss = program.cross_entropy(logits, program.input("targets", (2,)), 8)
    assert loss.shape == (2,) and loss.name.endswith(".loss")


def test_shapes_that_do_not_fit_name_the_call(program):
    x = program.input("x", (2, 4), "float32")
    h = program.gelu(x)
    with pytest.raises(ConfigError, match="weight_OI does not fit: I is 4 by x_NI") as caught:
        program.matmul(h, program.parameter("w", (3, 5), ones), None)
    assert caught.value.facts["where"] == "call 1 of the program"


def test_a_call_with_too_few_arguments_says_what_it_takes(program):
    x = program.input("x", (2, 4), "float32")
    with pytest.raises(
        ConfigError, match="layernorm takes 4 arguments, and was called with 1"
    ) as e:
        program.layernorm(x)
    assert e.value.facts["expected"] == "x_NC, weight_C, bias_C, eps"


def test_only_what_the_signature_allows_may_be_left_out(program):
    x = program.input("x", (2, 4), "float32")
    with pytest.raises(ConfigError, match="matmul needs weight_OI"):
        program.matmul(x, None, None)


def test_two_parameters_of_one_name_are_refused(program):
    program.parameter("w", (4,), ones)
    with pytest.raises(ConfigError, match="two parameters are called 'w'"):
        program.parameter("w", (5,), ones)


def test_a_reshape_keeps_the_number_of_elements(program):
    x = program.input("x", (2, 6), "float32")
    assert x.reshape(3, 4).reshape(12).root is x
    with pytest.raises(ConfigError, match=r"x of shape \(2, 6\) cannot be reshaped to \(5,\)"):
        x.reshape(5)


def test_no_op_of_that_name_is_an_attribute_error(program):
    with pytest.raises(AttributeError, match="no op is called 'layernrom'"):
        program.layernrom  # noqa: B018


def test_a_fused_call_is_replaced_by_its_parts(program):
    x = program.input("x", (2, 4), "float32")
    weight = program.parameter("w", (8, 4), ones)
    out = program.matmul_gelu(x, weight, None)
    after = program.softmax(out.reshape(4, 4), 4)
    expanded, reasons, replaced = expand(program, lambda op: "because")
    assert [call.op.name for call in expanded.calls] == ["matmul", "gelu", "softmax"]
    assert reasons == {"matmul_gelu": "because"}
    # What read the fused result reads the part's, in the same shape.
    read = expanded.calls[-1].arguments["logits_NV"]
    assert read.shape == (4, 4) and read.root is replaced[out]
    assert after not in replaced
    # The program itself is left as it was.
    assert [call.op.name for call in program.calls] == ["matmul_gelu", "softmax"]


def test_nothing_is_expanded_without_a_reason(program):
    x = program.input("x", (2, 4), "float32")
    program.matmul_gelu(x, program.parameter("w", (8, 4), ones), None)
    expanded, reasons, replaced = expand(program, lambda op: None)
    assert [call.op.name for call in expanded.calls] == ["matmul_gelu"]
    assert reasons == {} and replaced == {}
