"""A file that holds only a fused kernel can be used: naming the fused op is an explicit choice."""

import pytest

from harness.errors import ConfigError, OpNotImplemented
from harness.plugins import all_ops
from harness.plugins.dispatch import Dispatch

KERNEL = """
from harness import hookimpl
from harness.ops import residual_layernorm as op

device, arrays = "host", "numpy"


@hookimpl
def residual_layernorm_forward(
    sum_NC, out_NC, mean_N, rstd_N, a_NC, b_NC, weight_C, bias_C, eps
):
    results = op.reference_forward(a_NC, b_NC, weight_C, bias_C, eps)
    for buffer, result in zip((sum_NC, out_NC, mean_N, rstd_N), results):
        buffer[...] = result
"""


@pytest.fixture
def kernel(tmp_path):
    path = tmp_path / "mine.py"
    path.write_text(KERNEL)
    return str(path)


def test_a_fused_op_that_is_named_itself_is_called_as_one(kernel):
    ops = all_ops()
    choices = {
        "every_op": "numpy",
        "residual_layernorm_forward": kernel,
        "residual_layernorm_backward": "reference",
    }
    dispatch = Dispatch(ops, choices)
    assert dispatch.expansion(ops["residual_layernorm"]) is None
    assert dispatch.choose("residual_layernorm_forward").backend.name == kernel


def test_a_half_that_the_file_lacks_is_an_error_that_names_the_override(kernel):
    ops = all_ops()
    dispatch = Dispatch(ops, {"every_op": "numpy", "residual_layernorm": kernel})
    with pytest.raises(OpNotImplemented, match=r"ops\.residual_layernorm_backward=NAME"):
        dispatch.expansion(ops["residual_layernorm"])


def test_naming_the_fused_op_and_one_of_its_parts_is_a_conflict(kernel):
    ops = all_ops()
    choices = {"every_op": "numpy", "residual_layernorm": kernel, "layernorm": "python"}
    with pytest.raises(ConfigError, match="disagree"):
        Dispatch(ops, choices).expansion(ops["residual_layernorm"])


def test_a_half_that_is_named_wins_over_expand(kernel):
    ops = all_ops()
    choices = {
        "every_op": "numpy",
        "residual_layernorm": "expand",
        "residual_layernorm_forward": kernel,
    }
    dispatch = Dispatch(ops, choices)
    assert dispatch.expansion(ops["residual_layernorm"]) is None
    assert dispatch.choose("residual_layernorm_forward").backend.name == kernel
    assert dispatch.choose("residual_layernorm_backward").backend.name == "numpy"
