"""A specification is read as it is written, and refused where it forgets something."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.contract import Acc, In, Out, Param, Stat, State, core_ops, read_op
from harness.contract.signature import merge_leading, read_signature
from harness.contract.table import OpTable
from harness.errors import ConfigError, PluginError


def scale_forward(out_NC: Out, x_NC: In, weight_C: Param) -> None: ...


def scale_backward(
    dx_NC: Out | None,
    dweight_C: Acc | None,
    dout_NC: In,
    x_NC: In,
    weight_C: Param,
    accumulate: bool,
) -> None: ...


def refused(function):
    """The error that reading a specification gives."""
    with pytest.raises(PluginError) as caught:
        read_signature(function)
    assert caught.value.slug == "spec-refused"
    assert function.__name__ in caught.value.headline
    assert f"test_contract.py:{function.__code__.co_firstlineno}" in caught.value.facts["where"]
    return caught.value.headline


def refused_pair(op_module, forward, backward):
    with pytest.raises(PluginError) as caught:
        read_op(op_module("scale", forward, backward))
    assert caught.value.slug == "spec-refused"
    return caught.value.headline


def test_an_op_with_both_halves_is_read(op_module):
    op = read_op(op_module("scale", scale_forward, scale_backward))
    assert op.hooks == ("scale_forward", "scale_backward")
    assert op.gradient_of(op.forward.signature["weight_C"]).name == "dweight_C"


def test_outputs_come_before_inputs():
    def late_forward(x_N: In, out_N: Out): ...

    assert "outputs come first, then inputs, then settings" in refused(late_forward)


def test_settings_come_last():
    def early_forward(out_N: Out, eps: float, x_N: In): ...

    assert "outputs come first, then inputs, then settings" in refused(early_forward)


def test_a_statistic_is_an_output_of_the_forward_and_an_input_of_the_backward():
    def norm_forward(out_N: Out, rstd_N: Stat, x_N: In): ...
    def norm_backward(dx_N: Out, dout_N: In, rstd_N: Stat): ...

    assert [a.name for a in read_signature(norm_forward).outputs] == ["out_N", "rstd_N"]
    assert [a.name for a in read_signature(norm_backward).inputs] == ["dout_N", "rstd_N"]


def test_a_buffer_without_a_role_is_refused():
    def bare_forward(out_N: Out, x_N): ...

    assert "x_N needs a role" in refused(bare_forward)


def test_a_role_of_two_kinds_is_refused():
    def torn_forward(out_N: Out, x_N: In | Param): ...

    assert "x_N needs a role" in refused(torn_forward)


@pytest.mark.parametrize("name", ["x", "x_nc", "X_NC", "x_"])
def test_a_buffer_without_a_shape_suffix_is_refused(name):
    namespace = {"In": In, "Out": Out}
    exec(f"def bare_forward(out_N: Out, {name}: In): ...", namespace)
    with pytest.raises(PluginError, match=f"{name} needs a shape suffix, as in x_NC"):
        read_signature(namespace["bare_forward"])


@pytest.mark.parametrize("arguments", ["x_N: In = None", "*x_N: In", "*, x_N: In", "**x_N: In"])
def test_a_specification_has_plain_arguments_only(arguments):
    namespace = {"In": In, "Out": Out}
    exec(f"def odd_forward(out_N: Out, {arguments}): ...", namespace)
    with pytest.raises(PluginError, match="x_N must be a plain argument without a default"):
        read_signature(namespace["odd_forward"])


@pytest.mark.parametrize(
    ("missing", "of"), [("dx_NC", "x_NC"), ("dweight_C", "weight_C")], ids=["In", "Param"]
)
def test_an_input_without_its_gradient_is_refused(op_module, missing, of):
    def scale_backward(dx_NC: Out, dweight_C: Acc, dout_NC: In, x_NC: In, accumulate: bool): ...

    def without_dx(dweight_C: Acc, dout_NC: In, x_NC: In, accumulate: bool): ...
    def without_dweight(dx_NC: Out, dout_NC: In, weight_C: Param): ...

    read_op(op_module("scale", scale_forward, scale_backward))
    lacking = {"dx_NC": without_dx, "dweight_C": without_dweight}[missing]
    lacking.__name__ = "scale_backward"
    headline = refused_pair(op_module, scale_forward, lacking)
    assert f"it has no {missing}, the gradient of {of}" in headline
    assert "vanish silently" in headline


def test_an_output_whose_gradient_the_backward_does_not_take_is_refused(op_module):
    def split_forward(low_N: Out, high_N: Out, x_N: In): ...
    def split_backward(dx_N: Out, dlow_N: In): ...

    with pytest.raises(PluginError, match="it has no dhigh_N, the gradient that reaches high_N"):
        read_op(op_module("split", split_forward, split_backward))


def test_a_gradient_has_the_shape_of_what_it_is_of(op_module):
    def flip_forward(out_CN: Out, x_NC: In): ...
    def flip_backward(dx_NC: Out, dout_NC: In): ...

    # dout_NC is not the gradient of out_CN, and nothing else.
    with pytest.raises(PluginError, match="it has no dout_CN"):
        read_op(op_module("flip", flip_forward, flip_backward))


def test_the_gradient_of_a_parameter_is_accumulated(op_module):
    def scale_backward(dx_NC: Out, dweight_C: Out, dout_NC: In): ...

    headline = refused_pair(op_module, scale_forward, scale_backward)
    assert "dweight_C is the gradient of a Param and must be an Acc" in headline


def test_the_gradient_of_an_activation_is_overwritten(op_module):
    def scale_backward(dx_NC: Acc, dweight_C: Acc, dout_NC: In, accumulate: bool): ...

    headline = refused_pair(op_module, scale_forward, scale_backward)
    assert "dx_NC is the gradient of an In and must be an Out" in headline


def test_an_argument_that_no_program_could_pass_is_refused(op_module):
    def scale_backward(
        dx_NC: Out, dweight_C: Acc, dout_NC: In, scratch_NC: In, accumulate: bool
    ): ...

    headline = refused_pair(op_module, scale_forward, scale_backward)
    assert "scratch_NC is neither a gradient nor an argument" in headline


def test_accumulate_is_there_exactly_when_something_accumulates(op_module):
    def scale_backward(dx_NC: Out, dweight_C: Acc, dout_NC: In): ...

    def square_forward(out_N: Out, x_N: In): ...
    def square_backward(dx_N: Out, dout_N: In, accumulate: bool): ...

    why = "`accumulate: bool` is there exactly when there is an Acc"
    assert why in refused_pair(op_module, scale_forward, scale_backward)
    with pytest.raises(PluginError, match="exactly when there is an Acc"):
        read_op(op_module("square", square_forward, square_backward))


@pytest.mark.parametrize(
    "missing", ["scale_backward", "reference_backward", "magnitude_forward", "flops_backward"]
)
def test_an_op_file_that_lacks_something_is_refused_by_its_name(op_module, missing):
    module = op_module("scale", scale_forward, scale_backward)
    delattr(module, missing)
    with pytest.raises(PluginError, match=f"has no {missing}") as caught:
        read_op(module)
    assert caught.value.slug == "op-incomplete"


def test_a_fused_op_needs_its_decomposition(op_module):
    module = op_module("scale", scale_forward, scale_backward, PARTS=("matmul",))
    with pytest.raises(PluginError, match="has no decompose"):
        read_op(module)


OUTPUTS = {
    "layernorm_forward": ["out_NC", "mean_N", "rstd_N"],
    "layernorm_backward": ["dx_NC", "dweight_C", "dbias_C"],
    "attention_forward": ["out_BTHD", "lse_BHT"],
    "cross_entropy_forward": ["loss_N", "lse_N"],
    "cross_entropy_backward": ["dlogits_NV"],
    "adamw": ["param_P", "m_P", "v_P"],
}


@pytest.mark.parametrize("hook", OUTPUTS)
def test_the_signature_says_what_a_half_op_writes(hook):
    signature = core_ops().half(hook).signature
    assert [a.name for a in signature.outputs] == OUTPUTS[hook]


def test_shapes_of_outputs_follow_from_the_letters():
    signature = core_ops().half("attention_forward").signature
    dims = signature.bind({"qkv_BT3HD": (2, 5, 3, 4, 8)})
    assert signature.shape_of(signature["out_BTHD"], dims) == (2, 5, 4, 8)
    assert signature.shape_of(signature["lse_BHT"], dims) == (2, 4, 5)
    assert signature.shape_of(signature["qkv_BT3HD"], dims) == (2, 5, 3, 4, 8)


def test_leading_dimensions_merge_into_the_first_letter():
    signature = core_ops().half("layernorm_forward").signature
    assert signature.bind({"x_NC": (2, 3, 4), "weight_C": (4,)}) == {"N": 6, "C": 4}


def test_a_letter_with_two_values_names_both_arguments():
    signature = core_ops().half("layernorm_forward").signature
    with pytest.raises(ConfigError) as caught:
        signature.bind({"x_NC": (6, 4), "weight_C": (5,)}, where="call 3 of the program")
    assert caught.value.slug == "shape-misfit"
    headline = "layernorm_forward: weight_C does not fit: C is 4 by x_NC, and 5 here"
    assert caught.value.headline == headline
    assert caught.value.facts["found"] == "weight_C of shape (5,)"
    assert caught.value.facts["where"] == "call 3 of the program"


def test_letters_bind_within_one_call_only():
    signature = core_ops().half("gelu_forward").signature
    assert signature.bind({"x_NF": (2, 3)}) == {"N": 2, "F": 3}
    assert signature.bind({"x_NF": (5, 7)}) == {"N": 5, "F": 7}


def test_a_literal_extent_must_be_met():
    signature = core_ops().half("attention_forward").signature
    with pytest.raises(ConfigError, match="qkv_BT3HD does not fit: needs a literal 3"):
        signature.bind({"qkv_BT3HD": (2, 5, 4, 4, 8)})


def test_a_shape_with_too_few_dimensions_does_not_fit():
    signature = core_ops().half("layernorm_forward").signature
    with pytest.raises(ConfigError, match="x_NC does not fit: has too few dimensions"):
        signature.bind({"x_NC": (4,)})


def test_what_is_left_out_binds_nothing():
    signature = core_ops().half("matmul_forward").signature
    assert "O" not in signature.bind({"x_NI": (2, 3), "bias_O": None})


@given(st.lists(st.integers(1, 9), min_size=1, max_size=6), st.integers(1, 6))
def test_merging_keeps_the_trailing_dimensions_and_the_number_of_elements(shape, rank):
    merged = merge_leading(shape, rank)
    if rank > len(shape):
        assert merged is None
        return
    assert len(merged) == rank
    assert list(merged[1:]) == shape[len(shape) - rank + 1 :]
    product = 1
    for size in shape:
        product *= size
    for size in merged:
        assert product % size == 0
        product //= size
    assert product == 1


def test_an_op_whose_name_is_taken_is_refused(op_module):
    table = core_ops()

    def gelu_forward(out_N: Out, x_N: In): ...
    def gelu_backward(dx_N: Out, dout_N: In): ...

    op = read_op(op_module("gelu", gelu_forward, gelu_backward))
    with pytest.raises(PluginError, match="the op 'gelu' of a plugin is refused: 'gelu' is taken"):
        table.add(op, "a plugin")


def test_an_op_whose_hook_is_taken_is_refused(op_module):
    def gelu_forward(out_N: State): ...

    op = read_op(op_module("gelu_forward", gelu_forward))
    with pytest.raises(PluginError, match="'gelu_forward' is taken"):
        core_ops().add(op, "a plugin")


def test_an_unknown_op_names_the_nearest():
    with pytest.raises(ConfigError, match="no op is called 'layernrom'") as caught:
        core_ops()["layernrom"]
    assert caught.value.facts["nearest"] == "layernorm"


def test_what_is_added_to_one_table_is_in_no_other(op_module):
    op = read_op(op_module("scale", scale_forward, scale_backward))
    core_ops().add(op, "a plugin")
    assert "scale" not in core_ops()


def test_declared_ops_are_loaded_when_they_are_first_asked_for(op_module):
    loaded = []

    def load():
        loaded.append(1)
        return read_op(op_module("scale", scale_forward, scale_backward))

    table = OpTable({}, {"scale": load})
    assert "scale" in table and not loaded
    assert table.op_of("scale_backward") is table["scale"]
    assert len(loaded) == 1
