"""The more particular key wins, nothing is guessed, and overriding a part of a fused op takes effect."""

import pytest

from harness.errors import ConfigError, OpNotImplemented, PluginError
from harness.plugins.dispatch import Dispatch, bind

FUSED = ("residual_layernorm", "matmul_gelu", "matmul_cross_entropy")

GELU = """
@hookimpl
def gelu_forward(out_NF, x_NF):
    out_NF[...] = x_NF

@hookimpl
def gelu_backward(dx_NF, dout_NF, x_NF):
    dx_NF[...] = dout_NF
"""


def expansions(ops, choices):
    """Fused op -> why it is expanded, of those that are."""
    dispatch = Dispatch(ops, choices)
    found = {name: dispatch.expansion(ops[name]) for name in FUSED}
    return {name: why for name, why in found.items() if why is not None}


@pytest.mark.parametrize(
    ("choices", "hook", "backend", "key"),
    [
        ({"every_op": "reference"}, "gelu_forward", "reference", "ops.every_op"),
        ({"every_op": "reference", "gelu": "python"}, "gelu_forward", "python", "ops.gelu"),
        (
            {"every_op": "reference", "gelu": "python"},
            "softmax_forward",
            "reference",
            "ops.every_op",
        ),
        (
            {"every_op": "reference", "gelu": "python", "gelu_backward": "reference"},
            "gelu_backward",
            "reference",
            "ops.gelu_backward",
        ),
        (
            {"every_op": "reference", "gelu": "python", "gelu_backward": "reference"},
            "gelu_forward",
            "python",
            "ops.gelu",
        ),
        ({"every_op": "reference", "gelu": None}, "gelu_forward", "reference", "ops.every_op"),
        ({"every_op": "reference", "adamw": "python"}, "adamw", "python", "ops.adamw"),
    ],
)
def test_the_more_particular_key_wins(ops, choices, hook, backend, key):
    choice = Dispatch(ops, choices).choose(hook)
    assert (choice.backend.name, choice.chosen_by) == (backend, key)


def test_a_half_that_nothing_chooses_is_an_error(ops):
    with pytest.raises(ConfigError, match="nothing chooses a backend for gelu_forward") as caught:
        Dispatch(ops, {"softmax": "reference"}).choose("gelu_forward")
    assert caught.value.slug == "no-backend-chosen"


@pytest.mark.parametrize(
    ("key", "nearest"),
    [("gleu", "gelu"), ("gelu_bakward", "gelu_backward"), ("evry_op", "every_op")],
)
def test_a_key_that_is_no_op_names_the_nearest(ops, key, nearest):
    with pytest.raises(ConfigError) as caught:
        Dispatch(ops, {"every_op": "reference", key: "reference"})
    assert caught.value.headline.startswith(f"ops.{key}=reference: no op and no half")
    assert caught.value.facts["nearest"] == nearest


def test_a_misspelt_backend_is_an_error_even_if_no_call_uses_it(ops):
    with pytest.raises(PluginError, match="no backend is called 'refrence'"):
        Dispatch(ops, {"every_op": "reference", "attention": "refrence"})


def test_a_backend_without_the_op_is_an_error_and_nothing_else_is_used(ops, backend_file):
    path = backend_file("mine", "")
    dispatch = Dispatch(ops, {"every_op": "reference", "gelu": path})
    with pytest.raises(OpNotImplemented, match="does not implement gelu_forward"):
        dispatch.choose("gelu_forward")


def test_a_file_with_one_half_needs_the_other_to_be_chosen(ops, backend_file):
    path = backend_file("mine", GELU.split("@hookimpl\ndef gelu_backward")[0])
    dispatch = Dispatch(ops, {"every_op": "reference", "gelu": path})
    assert dispatch.choose("gelu_forward").backend.name == path
    with pytest.raises(OpNotImplemented) as caught:
        dispatch.choose("gelu_backward")
    assert caught.value.facts["choose one"] == "ops.gelu_backward=NAME"
    chosen = {"every_op": "reference", "gelu": path, "gelu_backward": "reference"}
    assert Dispatch(ops, chosen).choose("gelu_backward").backend.name == "reference"


def test_one_backend_for_everything_calls_the_fused_ops(ops):
    assert expansions(ops, {"every_op": "reference"}) == {}


def test_overriding_a_part_expands_the_fused_ops_that_have_it(ops):
    why = expansions(ops, {"every_op": "reference", "gelu": "python"})
    assert why == {"matmul_gelu": "ops.gelu=python overrides a part"}


def test_overriding_one_half_of_a_part_expands_too(ops):
    why = expansions(ops, {"every_op": "reference", "layernorm_backward": "python"})
    assert why == {"residual_layernorm": "ops.layernorm_backward=python overrides a part"}


def test_naming_the_same_backend_for_a_part_overrides_nothing(ops):
    assert expansions(ops, {"every_op": "reference", "gelu": "reference"}) == {}


def test_expand_expands(ops):
    why = expansions(ops, {"every_op": "reference", "matmul_gelu": "expand"})
    assert why == {"matmul_gelu": "ops.matmul_gelu=expand"}


def test_a_backend_without_the_fused_op_expands_it(ops, backend_file):
    path = backend_file("mine", GELU)
    why = expansions(ops, {"every_op": path})
    assert set(why) == set(FUSED)
    assert why["matmul_gelu"].endswith("does not implement matmul_gelu_forward")


def test_only_a_fused_op_can_be_expanded(ops):
    for key in ("gelu", "matmul_gelu_forward"):
        with pytest.raises(ConfigError, match="is not a fused op"):
            Dispatch(ops, {"every_op": "reference", key: "expand"})


def test_a_fused_op_and_a_part_of_it_that_are_both_named_conflict(ops):
    choices = {"every_op": "reference", "matmul_gelu": "reference", "gelu": "python"}
    with pytest.raises(ConfigError) as caught:
        expansions(ops, choices)
    assert caught.value.slug == "fusion-conflict"
    assert "ops.matmul_gelu and ops.gelu disagree" in caught.value.headline
    assert "ops.matmul_gelu=expand" in caught.value.facts["do"]


def test_the_table_says_what_really_runs(ops, backend_file):
    path = backend_file("mine", GELU)
    dispatch = Dispatch(ops, {"every_op": "reference", "gelu": path})
    (row,) = dispatch.table(("gelu_forward",))
    assert row["backend"] == path and row["chosen_by"] == "ops.gelu"
    assert row["source"].startswith("sha256 ")
    assert row["where"].startswith(f"{path}:")


class Wrapper:
    """Counts what it is asked, and replaces gelu_forward by `replacement`."""

    def __init__(self, replacement=None):
        self.asked = []
        self.replacement = replacement

    def wrap_op(self, op, backend, call):
        self.asked.append((op, backend))
        return self.replacement if op == "gelu_forward" else None


def test_a_wrapper_that_gives_none_leaves_the_function_as_it_is(ops):
    choice = Dispatch(ops, {"every_op": "reference"}).choose("softmax_forward")
    assert bind(choice, (Wrapper(),)) is choice.backend.functions["softmax_forward"]


def test_wrappers_wrap_in_order(ops):
    class Outer:
        def wrap_op(self, op, backend, call):
            return lambda *arguments: ("outer", call(*arguments))

    choice = Dispatch(ops, {"every_op": "reference"}).choose("gelu_forward")
    call = bind(choice, (Wrapper(lambda out, x: "inner"), Outer()))
    assert call(None, None) == ("outer", "inner")


def test_a_wrapper_is_asked_once_for_each_half_op_of_a_plan(gpt2_run):
    wrapper = Wrapper()
    run = gpt2_run(wrappers=(wrapper,))
    hooks = [hook for hook, _ in wrapper.asked]
    assert sorted(hooks) == sorted(run.plan.hooks)
    assert len(hooks) == len(set(hooks)) > 5
    assert {backend for _, backend in wrapper.asked} == {"reference"}


def test_a_wrapper_can_replace_what_is_called(gpt2_run, batch):
    calls = []

    def silent(out_NF, x_NF):
        calls.append(1)
        out_NF[...] = 0

    expanded = {"every_op": "reference", "matmul_gelu": "expand"}
    plain = gpt2_run(expanded).forward(batch(2, 5))
    replaced = gpt2_run(expanded, wrappers=(Wrapper(silent),)).forward(batch(2, 5))
    assert len(calls) == 2  # layers
    assert abs(plain - replaced).max() > 1e-3
