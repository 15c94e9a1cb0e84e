"""What a call needs in between lies in the arena, is lent to that call alone, and disturbs nothing."""

import numpy as np
import pytest

from harness.device import aligned
from harness.errors import PluginError
from harness.models.gpt2 import build
from harness.training.plan_table import totals
from harness.training.trainer import TrainerSettings, TrainingPlan

# Every call fills what it is lent with NaN, before and after it computes: it must be nobody else's.
KERNELS = """
import numpy as np
from harness import hookimpl
from harness.contract import core_ops
from harness.contract.reference import make_function

device, arrays = "host", "numpy"
OPS = core_ops()
asked, events, lent = {}, [], None

@hookimpl
def scratch_bytes(op, dims, precision, most):
    asked[op] = dims, most
    return 4 * dims["N"] * dims["F"] if op.startswith("gelu") else 0

@hookimpl
def lend_scratch(memory):
    global lent
    lent = memory
    events.append("taken back" if memory is None else "lent")

def compute(hook, *arguments):
    events.append(hook)
    out, *inputs = arguments
    assert lent.nbytes == out.nbytes and lent.dtype == np.uint8
    assert not any(np.shares_memory(lent, array) for array in arguments)
    lent.fill(0xFF)
    make_function(OPS.half(hook))(*arguments)
    lent.fill(0xFF)

@hookimpl
def gelu_forward(out_NF, x_NF):
    compute("gelu_forward", out_NF, x_NF)

@hookimpl
def gelu_backward(dx_NF, dout_NF, x_NF):
    compute("gelu_backward", dx_NF, dout_NF, x_NF)
"""
PLAIN = KERNELS.replace("@hookimpl\ndef scratch_bytes", "def scratch_bytes").replace(
    "@hookimpl\ndef lend_scratch", "def lend_scratch"
)


@pytest.fixture
def borrower(backend_file):
    return backend_file("borrower", KERNELS)


@pytest.fixture
def run(gpt2_run, borrower):
    return gpt2_run({"every_op": "numpy", "gelu": borrower}, scratch_bytes=1000)


def module_of(run, path):
    return run.dispatch.backend(path).module


def test_a_call_that_fills_its_scratch_disturbs_nobody(run, gpt2_run, batch):
    expected = gpt2_run({"every_op": "numpy", "gelu": "reference"}).step(batch(2, 5), 0.1)
    found = run.step(batch(2, 5), 0.1)
    np.testing.assert_array_equal(found.loss, expected.loss)
    for name, gradient in expected.gradients.items():
        np.testing.assert_array_equal(found.gradients[name], gradient, err_msg=name)


def test_scratch_is_lent_before_each_call_and_taken_back_after_it(run, batch, borrower):
    run.step(batch(2, 5))
    halves = ["gelu_forward"] * 2 + ["gelu_backward"] * 2
    expected = [event for half in halves for event in ("lent", half, "taken back")]
    assert module_of(run, borrower).events == expected


def test_a_call_that_raises_has_its_scratch_taken_back(gpt2_run, batch, backend_file):
    source = KERNELS.replace("events.append(hook)\n", 'raise ValueError("no")\n')
    path = backend_file("raises", source)
    run = gpt2_run({"every_op": "numpy", "gelu": path})
    with pytest.raises(ValueError, match="no"):
        run.forward(batch(2, 5))
    assert module_of(run, path).events == ["lent", "taken back"]
    assert module_of(run, path).lent is None


def test_a_backend_is_asked_at_the_sizes_of_each_call(run, borrower):
    asked = module_of(run, borrower).asked
    dims = {"N": 10, "F": 64}
    assert asked == {"gelu_forward": (dims, 1000), "gelu_backward": (dims, 1000)}


def test_scratch_lives_as_long_as_its_call_and_apart_from_what_lives_then(run):
    plan = run.plan
    steps = plan.forward + plan.backward
    lending = [step for step in steps if step.scratch is not None]
    assert [step.hook for step in lending] == ["gelu_forward"] * 2 + ["gelu_backward"] * 2
    for step in lending:
        scratch, index = step.scratch, steps.index(step)
        assert (scratch.first, scratch.last) == (index, index)
        assert scratch.offset + scratch.nbytes <= plan.arena_bytes["host"]
        for version in plan.versions.values():
            block = version.block
            if version.kind == "activation" and block.first <= index <= block.last:
                below = block.offset + block.nbytes <= scratch.offset
                assert below or scratch.offset + scratch.nbytes <= block.offset


def test_the_plan_says_what_of_the_arena_is_scratch(ops, micro, borrower, backend_file):
    plain = backend_file("plain", PLAIN)
    use, peak, line = {}, {}, {}
    for path in (plain, borrower):
        choices = {"every_op": "numpy", "gelu": path, "matmul_cross_entropy": "numpy"}
        training = TrainingPlan(TrainerSettings(micro, 256, 5, choices), ops)
        use[path], peak[path] = training.calls.arenas["host"], training.peak_bytes
        (line[path],) = (text for text in totals(training) if text.startswith("peak"))
    scratch = use[borrower].scratch
    assert use[plain].scratch == 0 < scratch == use[borrower].live - use[plain].live
    assert scratch % aligned(1) == 0
    assert peak[borrower] == peak[plain] | {
        "scratch": scratch,
        "activations": use[borrower].nbytes - scratch,
    }
    assert f"scratch {scratch / 2**20:.1f}" in line[borrower]


@pytest.mark.parametrize(("lacking", "there"), [("lend", "scratch_bytes"), ("scratch", "lend_")])
def test_one_hook_without_the_other_is_refused(gpt2_run, backend_file, lacking, there):
    source = KERNELS.replace(f"@hookimpl\ndef {lacking}_", f"def {lacking}_")
    path = backend_file("half", source)
    with pytest.raises(PluginError, match=f"implements {there}.* and not {lacking}") as error:
        gpt2_run({"every_op": "numpy", "gelu": path})
    assert error.value.slug == "scratch-incomplete"


@pytest.mark.parametrize("answer", ["-1", "1.5", "None", "True"])
def test_a_need_that_is_no_number_of_bytes_is_refused(gpt2_run, backend_file, answer):
    source = KERNELS.replace('4 * dims["N"] * dims["F"]', answer)
    with pytest.raises(PluginError, match="needs scratch of") as error:
        gpt2_run({"every_op": "numpy", "gelu": backend_file("half", source)})
    assert error.value.slug == "scratch-not-bytes"


def test_a_forward_alone_has_its_scratch_too(ops, micro, borrower, run_program, batch):
    program, loss = build(ops, micro, 2, 5)
    run = run_program(program, loss, {"every_op": "numpy", "gelu": borrower}, train=False)
    run.forward(batch(2, 5))
    assert module_of(run, borrower).events[:3] == ["lent", "gelu_forward", "taken back"]
