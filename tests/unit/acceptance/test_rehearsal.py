"""The parts themselves, at tiny shapes, with the kernels of `cupy` on the CPU in the GPU's place."""

import pytest

from harness.acceptance import driver, few_cases
from harness.acceptance.parts import MODULES, capture, conformance, losses, memory, ops, step
from harness.acceptance.parts.training import Trained
from harness.acceptance.piece import Asked, NotHere, attempt
from harness.plugins import all_ops

pytestmark = pytest.mark.skipif(
    not driver.computed_on_cpu(), reason="a GPU is asked by harness gpu-acceptance itself"
)
CUPY = {
    "options": {"matmul": ["cublaslt", "cublas"]},
    "precisions": ["fp32", "bf16"],
    "captures": True,
}


@pytest.fixture
def asked():
    return Asked({"cupy": CUPY}, rehearsal=True)


def results_of(part, asked, lane=None, only=None):
    lane = lane or part.lanes(asked)[0]
    found = {}
    for name, run in part.pieces(asked, lane, found):
        if only is None or name in only:
            found[name] = attempt(run)
    return found


def test_conformance_counts_the_cases_of_each_half(asked):
    found = results_of(conformance, asked, only=["gelu_forward"])
    assert found["gelu_forward"]["ok"], found
    assert found["gelu_forward"]["cases"] > 10
    (row,) = [line for line in conformance.lines({"cupy fp32": found}) if "cupy" in line]
    assert row.startswith("| cupy fp32 | 1 | 0 | 0 |")


def test_each_library_has_a_lane_of_the_ops_that_it_changes():
    lanes = conformance.lanes(Asked({"cupy": CUPY}))
    assert lanes == ["cupy fp32", "cupy bf16", "cupy fp32 matmul=cublas", "cupy bf16 matmul=cublas"]
    asked = Asked({"cupy": CUPY})
    hooks = [name for name, _ in conformance.pieces(asked, lanes[2], {})]
    assert "matmul_forward" in hooks and "matmul_forward at a real shape" in hooks
    assert not any(hook.startswith(("gelu", "layernorm")) for hook in hooks)


def test_a_captured_step_is_the_same_step(asked):
    (result,) = results_of(capture, asked).values()
    assert result["ok"], result
    assert len(result["losses"]) == 10 and result["faster"] > 0
    assert "equal, bit for bit" in "\n".join(capture.lines({"cupy": {"small": result}}))


def test_losses_that_differ_in_one_bit_are_not_equal(asked, monkeypatch):
    def train(overrides, steps):
        losses = [4.0, 3.0] if "capture=off" in overrides else [4.0, 3.0000000001]
        return Trained(losses, [1.0], None, None, {}, None)

    monkeypatch.setattr(capture, "train", train)
    result = capture.compared(asked, "cupy", (), 2)
    assert (result["ok"], result["reason"]) == (False, "losses differ in steps 2")


def test_a_step_that_was_not_captured_does_not_pass_as_one(asked, monkeypatch):
    def train(overrides, steps):
        return Trained([4.0], [1.0], None, None, {}, "it refused")

    monkeypatch.setattr(capture, "train", train)
    assert "not captured: it refused" in capture.compared(asked, "cupy", (), 1)["reason"]


def test_losses_follow_the_float64_formulas(asked):
    found = results_of(losses, asked, only=["float64", "fp32"])
    assert found["float64"]["ok"], found
    assert found["fp32"]["ok"], found
    assert 0 < found["fp32"]["apart"] < 1e-4


def test_losses_that_are_no_numbers_are_wrong(monkeypatch):
    nan = type("Trained", (), {"losses": [float("nan")] * 2})
    monkeypatch.setattr(losses, "train", lambda overrides: nan)
    found = losses.compared((), "bf16", "float64", {"float64": {"losses": [4.0, 3.0]}})
    assert found["ok"] is False


def test_losses_without_a_curve_to_hold_them_against_are_not_run():
    with pytest.raises(NotHere, match="no losses of float64"):
        losses.compared((), "bf16", "float64", {"float64": {"ok": False}})


def test_a_tool_that_is_not_there_is_not_run(monkeypatch):
    monkeypatch.setattr(memory.shutil, "which", lambda name: None)
    with pytest.raises(NotHere, match="not on PATH"):
        memory.sanitized(Asked({"cupy": CUPY}), "cupy", "memcheck")


@pytest.mark.parametrize(
    ("exits", "says", "ok"),
    [
        (0, "========= ERROR SUMMARY: 0 errors", True),
        (86, "========= ERROR SUMMARY: 3 errors", False),
        (0, "nothing of the tool's own", False),  # it did not look
    ],
)
def test_a_sanitizer_passes_by_its_own_summary(monkeypatch, tmp_path, exits, says, ok):
    tool = tmp_path / "compute-sanitizer"
    tool.write_text(f"#!/bin/sh\necho case\necho '{says}'\nexit {exits}\n")
    tool.chmod(0o755)
    monkeypatch.setattr(memory.shutil, "which", lambda name: str(tool))
    result = memory.sanitized(Asked({"cupy": CUPY}), "cupy", "memcheck")
    assert (result["ok"], result["cases"]) == (ok, 1)


def test_small_cases_are_no_cases_of_ones():
    table = all_ops()
    for hook in ("layernorm_backward", "attention_forward"):
        case = few_cases.small_case(table, hook, "fp32")
        assert min(size for _, size in case.dims) >= few_cases.LEAST_SIZE


def test_every_call_of_a_step_is_timed_and_scored(asked):
    found = results_of(ops, asked)
    calls = {(call["hook"], call["call"]): call for call in found["a step"]["calls"]}
    assert ("matmul_forward", 0) in calls and ("squared_norm", 0) in calls
    assert all(call["seconds"] > 0 and call["moved_bytes"] > 0 for call in calls.values())


def test_only_what_memory_bounds_and_no_cache_serves_misses_the_goal():
    call = {"bound": "memory", "in_cache": False, "copy_percent": 80.0}
    assert ops.below_goal(call)
    assert not ops.below_goal({**call, "copy_percent": 90.0})
    assert not ops.below_goal({**call, "in_cache": True})
    assert not ops.below_goal({**call, "bound": "compute"})


def test_a_whole_step_is_timed_alone_and_its_losses_are_held_against_ours(asked):
    found = results_of(step, asked)
    assert found["cupy"]["ok"] and found["cupy again"]["ok"], found
    assert found["cupy again"]["losses_apart"] == 0
    assert found["cupy"]["mfu"]["llm.c"] > 0
    assert "| cupy again |" in "\n".join(step.lines({"cupy bf16 tiny": found}))


def test_every_part_is_a_part_and_together_they_take_the_budget():
    import importlib

    found = [importlib.import_module(module).PART for module in MODULES.values()]
    assert [part.name for part in found] == list(MODULES)
    assert sum(part.share for part in found) == pytest.approx(1, abs=0.02)
