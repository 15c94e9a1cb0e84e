"""No two live buffers of a plan share bytes; its casts and accumulations are there to be read."""

from itertools import combinations

import numpy as np
import pytest

from harness.contract.precision import BFLOAT16, FLOAT32, Precision
from harness.device import ALIGNMENT, aligned
from harness.errors import ConfigError, PluginError
from harness.graph.program import Program
from harness.planning.layout import make_layout

EXPANDED = dict.fromkeys(("residual_layernorm", "matmul_gelu", "matmul_cross_entropy"), "expand")
MIXES = {
    "fused": ({"every_op": "reference"}, "fp32"),
    "expanded": ({"every_op": "reference"} | EXPANDED, "fp32"),
    "bf16": ({"every_op": "reference"} | EXPANDED, "bf16"),
    "mixed precision": (
        {"every_op": "reference"},
        Precision("bf16", {"attention": "fp32", "residual_layernorm": "fp32"}),
    ),
}


@pytest.fixture(params=MIXES)
def run(gpt2_run, request):
    return gpt2_run(*MIXES[request.param])


def activations(plan):
    return [version for version in plan.versions.values() if version.kind == "activation"]


def lifetimes(plan):
    """Activation -> (first step, last step) that touches it, read off the steps alone."""
    lives = {}
    steps = plan.forward + plan.backward
    for index, step in enumerate(steps):
        for view in step.views:
            if view.version.kind == "activation":
                first, _ = lives.get(view.version, (index, index))
                lives[view.version] = (first, index)
    for view in plan.results:
        lives[view.version] = (lives[view.version][0], len(steps))
    return lives


def shares_bytes(a, b):
    return (
        a.device == b.device
        and a.block.offset < b.block.offset + b.nbytes
        and b.block.offset < a.block.offset + a.nbytes
    )


def takes_over(plan, old, new, lives):
    """Whether the op's file lets `new` have the memory of `old`, which it reads for the last time."""
    (_, last), (first, _) = lives[old], lives[new]
    step = (plan.forward + plan.backward)[first]
    if last != first or step.call is None or old.block.offset != new.block.offset:
        return False
    names = {view.version: name for name, view in step.arguments.items() if view in step.views}
    return (names.get(new), names.get(old)) in step.call.half.may_alias


def test_no_two_buffers_that_live_at_once_share_bytes(run):
    lives = lifetimes(run.plan)
    shared = 0
    for a, b in combinations(lives, 2):
        if not shares_bytes(a, b):
            continue
        shared += 1
        (a_first, a_last), (b_first, b_last) = lives[a], lives[b]
        meet = a_first <= b_last and b_first <= a_last
        old, new = (a, b) if a_first < b_first else (b, a)
        assert not meet or takes_over(run.plan, old, new, lives), f"{a} and {b}"
    assert shared > 10  # or nothing was tested


def test_memory_is_taken_over_at_the_last_read(gpt2_run):
    plan = gpt2_run({"every_op": "reference"} | EXPANDED).plan
    lives = lifetimes(plan)
    steps = plan.forward + plan.backward
    at = {
        steps[lives[new][0]].hook
        for old, new in combinations(lives, 2)
        if shares_bytes(old, new) and takes_over(plan, old, new, lives)
    }
    # The sum has the memory of a part, and the gradient of the logits that of the logits.
    assert at == {"residual_forward", "cross_entropy_backward"}


def test_memory_is_not_taken_over_before_the_last_read(ops, run_program):
    def init(rng, shape):
        return rng.uniform(-1, 1, shape).astype(np.float32)

    program = Program(ops)
    x = program.input("x", (3, 4), "float32")
    h = program.matmul(x, program.parameter("w", (4, 4), init), None)
    total = program.residual(h, program.gelu(h))  # both may be aliased; h is read once more
    program.residual(total, h)
    run = run_program(program, program.calls[-1].arguments["out_NC"], train=False)
    versions = {v.tensor: v for v in activations(run.plan)}
    assert not shares_bytes(versions[total.root], versions[h.root])


def test_buffers_are_aligned_and_inside_the_arena(run):
    for version in activations(run.plan):
        assert version.block.offset % ALIGNMENT == 0
        assert version.block.offset >= 0
        assert version.block.offset + version.nbytes <= run.plan.arena_bytes[version.device]


def test_the_arena_is_smaller_than_its_buffers_together(run):
    together = sum(version.nbytes for version in activations(run.plan))
    assert run.plan.arena_bytes["host"] < 0.7 * together


def test_the_arena_is_within_a_tenth_of_what_is_live_at_once(run):
    lives = lifetimes(run.plan)
    live = max(
        sum({v.block: aligned(v.nbytes) for v, (a, b) in lives.items() if a <= at <= b}.values())
        for at in range(len(run.plan.forward + run.plan.backward) + 1)
    )
    assert live <= run.plan.arena_bytes["host"] <= 1.1 * live


def test_inference_needs_less_memory_than_training(gpt2_run):
    training, inference = gpt2_run().plan, gpt2_run(train=False).plan
    assert inference.arena_bytes["host"] < training.arena_bytes["host"]
    assert inference.backward == [] and inference.gradients == {}


def test_two_micro_batches_make_the_gradient_of_one_twice_as_large(gpt2_run, batch):
    inputs = batch(4, 5)
    whole = gpt2_run(B=4).step(inputs, weight=1 / 20).gradients
    halves = gpt2_run(B=2)
    halves.step({n: a[:2] for n, a in inputs.items()}, weight=1 / 20)
    both = halves.step({n: a[2:] for n, a in inputs.items()}, weight=1 / 20, first=False).gradients
    for name, gradient in whole.items():
        error = np.linalg.norm(both[name] - gradient) / np.linalg.norm(gradient)
        assert error < 1e-6, name


def test_the_first_micro_batch_overwrites(gpt2_run, batch):
    run = gpt2_run()
    once = run.step(batch(2, 5)).gradients
    run.step(batch(2, 5), first=False)
    again = run.step(batch(2, 5)).gradients
    for name in once:
        np.testing.assert_array_equal(once[name], again[name], err_msg=name)


def test_a_gradient_that_joins_one_already_written_is_zeroed_in_the_first_micro_batch_only(
    ops, run_program
):
    """A layernorm that shares its weight with an earlier one, and not its bias."""

    def init(rng, shape):
        return rng.uniform(-1, 1, shape).astype(np.float32)

    program = Program(ops)
    x = program.input("x", (3, 4), "float32")
    shared, first, second = (program.parameter(name, (4,), init) for name in "wbc")
    h = program.layernorm(x, shared, first, 1e-5)
    loss = program.layernorm(h, shared, second, 1e-5)
    run = run_program(program, loss)
    zeroed = [step for step in run.plan.backward if step.kind == "zero"]
    assert [step.views[0].version.tensor.name for step in zeroed] == ["db"]
    assert all(step.first_only for step in zeroed)
    inputs = {"x": np.random.default_rng(0).normal(size=(3, 4)).astype(np.float32)}
    once = run.step(inputs).gradients
    twice = run.step(inputs, first=False).gradients
    for name in "wbc":
        np.testing.assert_allclose(twice[name], 2 * once[name], rtol=1e-6, err_msg=name)


def test_bf16_keeps_masters_gradients_and_statistics_in_float32(gpt2_run):
    plan = gpt2_run(precision="bf16").plan
    assert all(version.dtype == FLOAT32 for version in plan.gradients.values())
    for step in plan.forward + plan.backward:
        if step.call is None:
            continue
        for argument in step.call.half.signature.buffers:
            view = step.arguments[argument.name]
            if view is None or step.hook == "cast":
                continue
            expected = {"Stat": FLOAT32, "Acc": FLOAT32, "Ids": np.dtype(np.int32)}
            wanted = expected.get(argument.role.__name__, BFLOAT16)
            assert view.version.dtype == wanted, f"{argument} of {step.hook}"


def test_bf16_lists_its_casts(gpt2_run):
    plan = gpt2_run(precision="bf16").plan
    (weights,) = plan.casts
    assert plan.casts == plan.refresh == plan.renewals
    assert weights.call.dims == {"P": make_layout(plan.program).total}
    assert {step.arguments["out_P"].version.dtype for step in plan.casts} == {BFLOAT16}
    assert gpt2_run(precision="fp32").plan.casts == []


def test_an_op_of_another_precision_has_casts_around_it(gpt2_run, batch):
    precision = Precision("fp32", {"attention": "bf16"})
    run = gpt2_run(precision=precision)
    forward = [step.hook for step in run.plan.forward]
    at = forward.index("attention_forward")
    assert forward[at - 1] == "cast" and forward[at + 1] == "cast"
    exact = gpt2_run().step(batch(2, 5))
    near = run.step(batch(2, 5))
    assert 0 < np.abs(near.loss - exact.loss).max() < 2e-2  # 2^-8, of logits below 1


def test_bf16_trains_with_gradients_near_those_of_float32(gpt2_run, batch):
    exact, near = (gpt2_run(precision=p).step(batch(2, 5), 0.1) for p in ("fp32", "bf16"))
    for name, gradient in exact.gradients.items():
        error = np.linalg.norm(near.gradients[name] - gradient) / np.linalg.norm(gradient)
        assert 0 < error < 0.05, name  # 2^-8 an op, some ten ops deep


def test_low_precision_weights_are_renewed_by_refresh(gpt2_run, batch):
    run = gpt2_run(precision="bf16")
    before = run.forward(batch(2, 5))
    run.parameters.view("parameter", "wte")[...] *= 2
    run.parameters.changed()
    np.testing.assert_array_equal(run.forward(batch(2, 5)), before)
    run.executor.refresh()
    assert np.abs(run.forward(batch(2, 5)) - before).max() > 1e-4


def test_a_float_input_is_written_as_float32_under_every_policy(ops, run_program):
    program = Program(ops)
    x = program.input("x", (2, 4), "float32")
    ones = program.parameter("w", (3, 4), lambda rng, shape: np.ones(shape, np.float32))
    loss = program.matmul(x, ones, None)
    run = run_program(program, loss, precision="bf16")
    result = run.step({"x": np.ones((2, 4), np.float32)})
    assert (result.loss.astype(np.float32) == 4).all()
    assert (result.gradients["w"] == 2).all()


def test_a_precision_that_a_backend_does_not_compute_is_an_error(gpt2_run):
    with pytest.raises(PluginError) as caught:
        gpt2_run("python", precision="bf16")
    assert caught.value.slug == "precision-unsupported"
    headline = "backend 'python' does not compute embedding in bf16 (chosen by ops.every_op)"
    assert caught.value.headline == headline
    assert caught.value.facts["supported"] == "fp32"
    assert caught.value.facts["do"].startswith("precision=fp32, precision_of.embedding=fp32")


def test_a_backend_may_compute_single_ops_in_a_precision(gpt2_run, backend_file):
    source = """
        computes = {"fp32": "f32", "bf16": {"gelu": "f32"}}
        @hookimpl
        def gelu_forward(out_NF, x_NF): ...
        @hookimpl
        def gelu_backward(dx_NF, dout_NF, x_NF): ...
        @hookimpl
        def residual_forward(out_NC, a_NC, b_NC): ...
        """
    path = backend_file("mine", source)
    plan = gpt2_run({"every_op": "reference", "gelu": path}, precision="bf16").plan
    assert "gelu_forward" in plan.hooks
    with pytest.raises(PluginError, match="does not compute residual in bf16") as caught:
        gpt2_run({"every_op": "reference", "residual_forward": path}, precision="bf16")
    assert caught.value.facts["do"].startswith("precision_of.residual=fp32")


def test_an_unknown_precision_names_the_nearest():
    for make in (lambda: Precision("bf61"), lambda: Precision("fp32", {"gelu": "bf61"})):
        with pytest.raises(ConfigError, match="no precision is called 'bf61'") as caught:
            make()
        assert caught.value.facts["nearest"] == "bf16"


def test_the_precision_of_one_op_leaves_the_others(gpt2_run):
    precision = Precision("bf16", {"attention": "fp32"})
    assert (precision.of("attention"), precision.of("matmul")) == ("fp32", "bf16")


def test_the_bytes_of_a_step_are_those_of_its_buffers(gpt2_run):
    plan = gpt2_run({"every_op": "reference"} | EXPANDED).plan
    step = next(step for step in plan.forward if step.hook == "gelu_forward")
    assert step.moved_bytes == 2 * 4 * 10 * 64  # read and write, float32, 2*5 rows of 4*16
    step = next(step for step in plan.forward if step.hook == "matmul_forward")
    N, C, O = 10, 16, 48
    assert step.moved_bytes == 4 * (N * C + O * C + O + N * O)
    assert step.flops == pytest.approx(2 * N * C * O, rel=0.05)


def test_the_plan_says_what_was_expanded_and_why(gpt2_run):
    plan = gpt2_run({"every_op": "reference", "matmul_gelu": "expand"}).plan
    assert plan.expanded == {"matmul_gelu": "ops.matmul_gelu=expand"}
    assert "gelu_forward" in plan.hooks and "matmul_gelu_forward" not in plan.hooks


def test_fused_and_expanded_agree(gpt2_run, batch):
    fused = gpt2_run().step(batch(2, 5), 0.1)
    expanded = gpt2_run({"every_op": "reference"} | EXPANDED).step(batch(2, 5), 0.1)
    np.testing.assert_allclose(fused.loss, expanded.loss, rtol=1e-6, atol=1e-6)
    for name, gradient in fused.gradients.items():
        error = np.linalg.norm(expanded.gradients[name] - gradient) / np.linalg.norm(gradient)
        assert error < 1e-6, name
