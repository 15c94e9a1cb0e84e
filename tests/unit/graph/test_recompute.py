"""What the backward computes again is what the forward had: every gradient has the same bits."""

from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from harness.contract import In, Kept, Out, core_ops, hookspec, read_op
from harness.contract.precision import Precision
from harness.errors import ConfigError, PluginError
from harness.graph import recompute
from harness.models.gpt2 import build
from harness.models.lora import Lora
from harness.plugins import installed, load
from harness.training.plan_table import totals
from harness.training.trainer import TrainerSettings, TrainingPlan

TOY = str(Path(__file__).parents[1] / "toy_device.py")
EXPANDED = dict.fromkeys(("residual_layernorm", "matmul_gelu", "matmul_cross_entropy"), "expand")
HEAD = {"matmul_cross_entropy": "expand"}
EVERY_PART = Lora(rank=2, targets=("qkv", "attproj", "fc", "fcproj"))
MIXES = {
    "fused": ({}, "fp32", None),
    "expanded": (EXPANDED, "fp32", None),
    "expanded head": (HEAD, "fp32", None),
    "adapter": (HEAD, "fp32", Lora(rank=2)),
    "adapter everywhere": (EXPANDED, "fp32", EVERY_PART),
}
CASES = {
    **{f"numpy {name}": ({"every_op": "numpy"} | ops, *m) for name, (ops, *m) in MIXES.items()},
    "python fused": ({"every_op": "python"}, "fp32", None),
    "python expanded": ({"every_op": "python"} | EXPANDED, "fp32", None),
    "numpy bf16": ({"every_op": "numpy"}, "bf16", None),
    "numpy bf16 expanded": ({"every_op": "numpy"} | EXPANDED, "bf16", None),
    "numpy bf16 in places": (
        {"every_op": "numpy"} | EXPANDED,
        Precision("bf16", {"attention": "fp32", "gelu": "fp32"}),
        None,
    ),
    "attention in python": ({"every_op": "numpy", "attention": "python"}, "fp32", None),
    "gelu by formula": ({"every_op": "numpy", "gelu": "reference"}, "fp32", None),
    "fused gelu by formula": ({"every_op": "numpy", "matmul_gelu": "reference"}, "fp32", None),
}
POLICIES = [name for name in recompute.POLICIES if name != "none"]


@pytest.fixture
def make_run(ops, micro, run_program):
    """A micro GPT-2 of a case, whose adapter adds something from the first step on."""

    def make(case, policy="none", B=2, T=5):
        choices, precision, adapter = CASES[case]
        program, loss = build(ops, micro, B, T, adapter=adapter)
        run = run_program(program, loss, choices, precision, recompute=policy)
        rng = np.random.default_rng(3)
        for name in run.parameters.layout.shapes:
            if name.startswith("lora_b"):
                view = run.parameters.view("parameter", name)
                view[...] = rng.standard_normal(view.shape) * 0.1
        run.executor.refresh()
        return run

    return make


def two_micro_batches(run, batch):
    """The losses of both, and the gradients that they add up to."""
    first = run.step(batch(2, 5, seed=1), 0.1)
    second = run.step(batch(2, 5, seed=2), 0.1, first=False)
    return {"loss 1": first.loss, "loss 2": second.loss, **second.gradients}


def differences(found, expected):
    assert found.keys() == expected.keys()
    return [n for n in expected if not np.array_equal(found[n], expected[n])]


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("case", CASES)
def test_losses_and_gradients_have_the_same_bits(make_run, batch, case, policy):
    plain, again = make_run(case), make_run(case, policy)
    expected = two_micro_batches(plain, batch)
    assert not differences(two_micro_batches(again, batch), expected)
    assert all(array.any() for array in expected.values())


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("away", ["attention", "gelu", "residual_layernorm", "attention_forward"])
def test_an_op_on_another_device_is_made_again_there(gpt2_run, batch, policy, away):
    choices = {"every_op": "reference", away: TOY} | ({"matmul_gelu": "expand"})
    plain, again = (
        gpt2_run(choices, transfer="allow", recompute=name) for name in ("none", policy)
    )
    expected = two_micro_batches(plain, batch)
    assert not differences(two_micro_batches(again, batch), expected)


def _another_layer(self, call):
    """Makes what the other layer's gelu gave."""
    calls = [c for c in self._program.calls if c.op is call.op and c is not call]
    wrong = calls[-1] if call.op.name == "gelu" else call
    honest(self, recompute.replace(call, arguments={**wrong.arguments, **_outputs(call)}))


def _outputs(call):
    return {a.name: call.arguments[a.name] for a, _ in call.written}


def _the_forwards_own(self, call):
    """Says that it made something, and records no call."""
    honest(self, call)
    self._calls.pop()


honest = recompute._Again._make


def test_a_call_that_makes_something_else_again_is_noticed(make_run, batch, monkeypatch):
    expected = two_micro_batches(make_run("numpy expanded"), batch)
    monkeypatch.setattr(recompute._Again, "_make", _another_layer)
    assert differences(two_micro_batches(make_run("numpy expanded", "gelu"), batch), expected)


def test_a_call_that_was_forgotten_makes_no_plan(make_run, monkeypatch):
    monkeypatch.setattr(recompute._Again, "_make", _the_forwards_own)
    with pytest.raises(KeyError):
        make_run("numpy expanded", "gelu")


def crossing(plan):
    """The blocks that a backward reads something in that the forward left there."""
    end = len(plan.forward)
    found = {v.block for v in plan.versions.values() if v.kind == "activation"}
    return [block for block in found if block.first < end <= block.last]


@pytest.mark.parametrize("policy", ["none", *POLICIES])
def test_the_backward_reads_nothing_else_that_the_forward_left(make_run, batch, policy):
    expected = make_run("numpy expanded").step(batch(2, 5), 0.1)
    run = make_run("numpy expanded", policy)
    run.forward(batch(2, 5))
    kept = {id(b): b for b in crossing(run.plan)}.values()
    arena = run.executor._arenas["host"]
    left = [(b.offset, arena[b.offset : b.offset + b.nbytes].copy()) for b in kept]
    arena[...] = 0xFF  # NaN, whichever way it is read
    for offset, values in left:
        arena[offset : offset + len(values)] = values
    run.executor.seed(np.full(10, 0.1, np.float32))
    run.executor.backward()
    found = run.parameters.to_host("gradient")
    assert not differences(found, expected.gradients)


@pytest.mark.parametrize("case", ["numpy fused", "numpy expanded", "numpy adapter", "python fused"])
def test_the_bytes_of_what_is_dropped_are_gone(make_run, case):
    none, gelu, block = (make_run(case, policy).plan for policy in ("none", *POLICIES))
    kept = [sum(b.nbytes for b in crossing(plan)) for plan in (none, gelu, block)]
    N, C, L = 10, 16, 2
    assert kept[0] - kept[1] == 4 * N * 4 * C * L  # the outputs of GELU
    # Of a layer's 12 N C other numbers two remain: the stream, and what the layer adds to it.
    assert kept[1] - kept[2] > 4 * N * C * (12 - 2) * L
    assert block.arena_bytes["host"] < none.arena_bytes["host"]


def again(plan):
    return Counter(step.hook for step in plan.backward if step.again)


def test_a_block_is_computed_again_without_its_last_product(make_run):
    plan = make_run("numpy fused", "block").plan
    # Of two layers; and the layernorms before, between and after them, each with the sum before it.
    assert again(plan) == {
        **{f"{op}_forward": 2 for op in ("attention", "matmul_gelu")},
        "matmul_forward": 4,
        "residual_layernorm_forward": 4,
        "layernorm_forward": 1,
    }
    last_products = [plan.program.parameters[f"fcprojw.{layer}"] for layer in range(2)]
    made = [step.call for step in plan.backward if step.again]
    assert not any(call.arguments.get("weight_OI") in last_products for call in made)


def test_a_block_is_computed_again_just_before_its_backward(make_run):
    plan = make_run("numpy fused", "block").plan
    blocks = [step.call.block for step in plan.backward if step.again]
    assert blocks == [2] + [1] * 6 + [0] * 6
    first = next(i for i, step in enumerate(plan.backward) if step.again)
    assert [step.hook for step in plan.backward[:first]] == ["matmul_cross_entropy_backward"]


def test_a_fused_gelu_is_made_again_by_its_part(make_run):
    assert again(make_run("numpy fused", "gelu").plan) == {"gelu_forward": 2}


@pytest.mark.parametrize("case", ["numpy bf16", "fused gelu by formula"])
def test_a_fused_gelu_is_kept_where_its_part_might_round_otherwise(make_run, case):
    assert not again(make_run(case, "gelu").plan)
    assert again(make_run(case, "block").plan)["matmul_gelu_forward"] == 2


def test_without_blocks_no_block_is_computed_again(ops, run_program):
    p = recompute.Program(ops)
    x = p.input("x", (3, 4), "float32")
    w = p.parameter("w", (4, 4), lambda rng, shape: rng.standard_normal(shape, np.float32))
    p.residual(p.gelu(p.matmul(x, w, None)), x)
    loss = p.cross_entropy(p.calls[-1].arguments["out_NC"], p.input("y", (3,)), 4)
    run = run_program(p, loss, "numpy", recompute="block")
    assert not again(run.plan)


def test_an_unknown_policy_is_refused(gpt2_run):
    with pytest.raises(ConfigError, match="none, gelu, block") as error:
        gpt2_run(recompute="everything")
    assert error.value.slug == "unknown-recompute"


def test_a_forward_alone_computes_nothing_again(gpt2_run):
    plan = gpt2_run("numpy", train=False, recompute="block").plan
    assert not any(step.again for step in plan.steps)


def test_the_plan_says_what_is_saved_and_what_it_costs(ops, micro):
    plans, lines = {}, {}
    for policy in recompute.POLICIES:
        settings = TrainerSettings(micro, 64, 8, {"every_op": "numpy"} | HEAD, recompute=policy)
        training = TrainingPlan(settings, ops)
        plans[policy] = training.calls
        lines[policy] = [line for line in totals(training) if line.startswith("recompute")]
    assert lines["none"] == []
    flops = sum(step.flops for step in plans["none"].forward + plans["none"].backward)
    for policy in POLICIES:
        now, before = (plans[name].arena_bytes["host"] / 2**20 for name in (policy, "none"))
        made = [step.flops for step in plans[policy].backward if step.again]
        (line,) = lines[policy]
        assert f"{policy}: {now:.1f} MiB of activations instead of {before:.1f}" in line
        assert f"{len(made)} calls" in line and f"({100 * sum(made) / flops:.1f} %)" in line


def test_decomposed_calls_belong_to_the_block_of_their_call(make_run):
    fused, expanded = (make_run(f"numpy {name}").plan.program for name in ("fused", "expanded"))
    assert {c.block for c in fused.calls} == {c.block for c in expanded.calls} == {None, 0, 1, 2}
    blocks = [c.block for c in expanded.calls if c.op.name in ("residual", "gelu")]
    assert blocks == [0, 0, 1, 1, 1, 2]


# -- AGAIN in op files ----------------------------------------------------------------------------


@pytest.mark.parametrize("name", installed())
@pytest.mark.parametrize("shape", [(5, 7, 9), (33, 64, 131), (70, 24, 256)])
def test_a_part_makes_the_bits_that_the_fused_op_made(ops, rng, name, shape):
    try:
        backend = load(name, ops)
    except PluginError as error:
        pytest.skip(f"backend {name} cannot be imported here: {error.headline}")
    found = [op for op in core_ops().values() if op.again and op.forward.name in backend]
    if not found:
        pytest.skip(f"backend {name} has no fused op of which a part is made again")
    assert [op.name for op in found] == ["matmul_gelu"]
    N, I, O = shape
    x, weight, bias = (rng.standard_normal(s, np.float32) for s in ((N, I), (O, I), (O,)))
    fused, pre, single = (np.empty((N, O), np.float32) for _ in range(3))
    backend.call("matmul_gelu_forward", fused, pre, x, weight, bias)
    backend.call("gelu_forward", single, pre)
    np.testing.assert_array_equal(single, fused)


@pytest.fixture
def rng():
    return np.random.default_rng(0)


@pytest.mark.parametrize(
    ("again", "why"),
    [
        ({"x_NI": ("gelu", ("kept_NI",))}, "names x_NI, which it does not write"),
        ({"out_NI": ("softmax", ("kept_NI",))}, "names softmax, which is not one of its PARTS"),
        ({"out_NI": ("gelu", ("pre_NI",))}, "cannot make out_NI from pre_NI"),
        ({"out_NI": ("gelu", ("out_NI",))}, "cannot make out_NI from out_NI"),
    ],
)
def test_an_op_file_whose_again_is_wrong_is_refused(op_module, again, why):
    @hookspec
    def toy_forward(out_NI: Out, kept_NI: Kept, x_NI: In) -> None: ...

    @hookspec
    def toy_backward(dx_NI: Out, dout_NI: In, kept_NI: In) -> None: ...

    names = {"PARTS": ("matmul", "gelu"), "decompose": lambda p, x: x, "AGAIN": again}
    with pytest.raises(PluginError, match=why):
        read_op(op_module("toy", toy_forward, toy_backward, **names))
