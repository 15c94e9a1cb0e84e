"""The parts themselves, at tiny shapes, with the kernels of `cupy` on the CPU in the GPU's place."""

import pytest

from harness.acceptance import few_cases
from harness.acceptance.part import Request, Unavailable, attempt
from harness.acceptance.parts import (
    MODULES,
    capture,
    conformance,
    launch,
    losses,
    memory,
    ops,
    step,
)
from harness.acceptance.parts.training import Trained
from harness.machine import nvidia_driver as driver
from harness.plugins.loading import all_ops

pytestmark = pytest.mark.skipif(
    not driver.computed_on_cpu(), reason="a GPU is asked by harness gpu-acceptance itself"
)
CUPY = {
    "options": {"matmul": ["cublaslt", "cublas"]},
    "precisions": ["fp32", "bf16"],
    "captures": True,
}


NUMBA_CUDA = {"options": {}, "precisions": ["fp32", "bf16"], "captures": True}
BOTH = {"cupy": {**CUPY, "precisions": ["fp32", "tf32", "bf16"]}, "numba_cuda": NUMBA_CUDA}


@pytest.fixture
def rehearsal():
    return Request({"cupy": CUPY}, rehearsal=True)


def results_of(part, request, worker=None, only=None):
    worker = worker or part.workers(request)[0]
    found = {}
    for name, run in part.checks(request, worker, found):
        if only is None or name in only:
            found[name] = attempt(run)
    return found


def test_conformance_counts_the_cases_of_each_half(rehearsal):
    found = results_of(conformance, rehearsal, only=["gelu_forward"])
    assert found["gelu_forward"]["ok"], found
    assert found["gelu_forward"]["cases"] > 10
    (row,) = [line for line in conformance.lines({"cupy fp32": found}) if "cupy" in line]
    assert row.startswith("| cupy fp32 | 1 | 0 | 0 |")


def test_each_library_has_a_worker_of_the_ops_that_it_changes():
    workers = conformance.workers(Request({"cupy": CUPY}))
    assert workers == [
        "cupy fp32",
        "cupy bf16",
        "cupy fp32 matmul=cublas",
        "cupy bf16 matmul=cublas",
    ]
    request = Request({"cupy": CUPY})
    hooks = [name for name, _ in conformance.checks(request, workers[2], {})]
    assert "matmul_forward" in hooks and "matmul_forward at a real shape" in hooks
    assert not any(hook.startswith(("gelu", "layernorm")) for hook in hooks)


def test_a_captured_step_is_the_same_step(rehearsal):
    (result,) = results_of(capture, rehearsal).values()
    assert result["ok"], result
    assert len(result["losses"]) == 10 and result["faster"] > 0
    assert "equal, bit for bit" in "\n".join(capture.lines({"cupy": {"small": result}}))


def test_losses_that_differ_in_one_bit_are_not_equal(rehearsal, monkeypatch):
    def train(overrides, steps):
        losses = [4.0, 3.0] if "capture=off" in overrides else [4.0, 3.0000000001]
        return Trained(losses, [1.0], None, None, {}, None)

    monkeypatch.setattr(capture, "train", train)
    result = capture.compared(rehearsal, "cupy", (), 2)
    assert (result["ok"], result["reason"]) == (False, "losses differ in steps 2")


def test_a_step_that_was_not_captured_does_not_pass_as_one(rehearsal, monkeypatch):
    def train(overrides, steps):
        return Trained([4.0], [1.0], None, None, {}, "it refused")

    monkeypatch.setattr(capture, "train", train)
    assert "not captured: it refused" in capture.compared(rehearsal, "cupy", (), 1)["reason"]


def test_losses_follow_the_float64_formulas(rehearsal):
    found = results_of(losses, rehearsal, only=["float64", "fp32"])
    assert found["float64"]["ok"], found
    assert found["fp32"]["ok"], found
    assert 0 < found["fp32"]["apart"] < 1e-4


def test_losses_that_are_no_numbers_are_wrong(monkeypatch):
    nan = type("Trained", (), {"losses": [float("nan")] * 2})
    monkeypatch.setattr(losses, "train", lambda overrides: nan)
    found = losses.compared((), "bf16", "float64", {"float64": {"losses": [4.0, 3.0]}})
    assert found["ok"] is False


def test_losses_without_a_curve_to_hold_them_against_are_not_run():
    with pytest.raises(Unavailable, match="no losses of float64"):
        losses.compared((), "bf16", "float64", {"float64": {"ok": False}})


def test_a_tool_that_is_not_there_is_not_run(monkeypatch):
    monkeypatch.setattr(memory.shutil, "which", lambda name: None)
    with pytest.raises(Unavailable, match="not on PATH"):
        memory.sanitized(Request({"cupy": CUPY}), "cupy", "memcheck")


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
    result = memory.sanitized(Request({"cupy": CUPY}), "cupy", "memcheck")
    assert (result["ok"], result["cases"]) == (ok, 1)


def test_small_cases_are_no_cases_of_ones():
    table = all_ops()
    for hook in ("layernorm_backward", "attention_forward"):
        case = few_cases.small_case(table, hook, "fp32")
        assert min(size for _, size in case.dims) >= few_cases.MIN_SIZE


def test_every_call_of_a_step_is_timed_and_scored(rehearsal):
    found = results_of(ops, rehearsal)
    calls = {(call["hook"], call["call"]): call for call in found["a step"]["calls"]}
    assert ("matmul_forward", 0) in calls and ("squared_norm", 0) in calls
    assert all(call["seconds"] > 0 and call["moved_bytes"] > 0 for call in calls.values())


def test_only_what_memory_bounds_and_no_cache_serves_misses_the_goal():
    call = {"bound": "memory", "in_cache": False, "copy_percent": 80.0}
    assert ops.below_goal(call, 85.0)
    assert not ops.below_goal({**call, "copy_percent": 90.0}, 85.0)
    assert not ops.below_goal({**call, "in_cache": True}, 85.0)
    assert not ops.below_goal({**call, "bound": "compute"}, 85.0)


def test_less_is_asked_of_kernels_in_python():
    assert ops.goal_of("cupy bf16 B=32") == 85.0
    assert ops.goal_of("numba_cuda bf16 B=32") == 60.0
    assert ops.goal_of("another bf16 B=32") == 85.0


@pytest.mark.parametrize("name", ["cupy", "numba_cuda"])
def test_a_launch_is_timed_on_the_host_and_in_a_graph(name):
    (result,) = results_of(launch, Request(BOTH, rehearsal=True), name).values()
    assert result["ok"] and result["host_s"] > 0 and result["graph_s"] > 0
    assert f"| {name} gelu_forward | 5 |" in "\n".join(
        launch.lines({name: {"gelu_forward": result}})
    )


def test_a_backend_that_records_nothing_has_no_graph_s_time():
    result = launch.launched("numpy", 3, 2)
    assert result["graph_s"] is None
    assert "no graph" in "\n".join(launch.lines({"numpy": {"gelu_forward": result}}))


def test_a_mix_of_backends_trains_where_there_are_all_of_them():
    request = Request(BOTH)
    assert losses.workers(request)[-3:] == ["cupy 124M", "numba_cuda 124M", "fast_mix 124M"]
    assert capture.workers(request) == ["cupy", "numba_cuda", "fast_mix"]
    assert not any("fast_mix" in worker for worker in losses.workers(Request({"cupy": CUPY})))


def test_a_mix_is_held_against_the_first_of_its_backends(monkeypatch):
    request = Request(BOTH)
    ran = []

    def train(overrides):
        ran.append([word for word in overrides if word.startswith(("ops", "backend", "precision"))])
        return Trained([4.0, 3.0], [1.0], None, None, {}, None)

    monkeypatch.setattr(losses, "train", train)
    found = results_of(losses, request, "fast_mix 124M")
    assert list(found) == ["cupy fp32", "fp32", "bf16"]  # numba_cuda has no tf32
    assert [result["ok"] for result in found.values()] == [True] * 3
    assert found["bf16"]["base"] == "cupy fp32"
    assert ran == [
        ["backend=cupy", "precision=fp32"],
        ["ops=fast_mix", "precision=fp32"],
        ["ops=fast_mix", "precision=bf16"],
    ]


def test_every_kernel_of_numba_cuda_is_looked_at_and_no_library_s_of_cupy(monkeypatch):
    asked_for = {"cupy": set(), "numba_cuda": set()}
    right = type("Verdict", (), {"cases": 1, "status": "passed"})
    for name, hooks in asked_for.items():

        def judge(backend, hook, *_, hooks=hooks, **__):
            hooks.add(hook)
            return right

        monkeypatch.setattr(few_cases, "judge", judge)
        assert few_cases.main([name, "matmul", "gelu"]) == 0
    assert asked_for["cupy"] == {"gelu_forward", "gelu_backward"}
    assert asked_for["numba_cuda"] >= {"matmul_forward", "matmul_backward", "gelu_forward"}


def test_rates_are_the_best_of_the_backends_on_the_device():
    alone = ops.rates("numba_cuda", "fp32")
    assert alone["peaks"]["backend"] == "numba_cuda"
    beside = ops.rates("numba_cuda", "fp32", ("cupy", "numba_cuda"))
    assert beside["peaks"]["backend"] == "cupy+numba_cuda"
    assert "tf32_flops_per_s" in beside["peaks"]["rates"]
    with pytest.raises(Unavailable, match="does not measure"):
        ops.rates("numpy", "fp32", ("cupy",))


def test_a_whole_step_is_timed_alone_and_its_losses_are_held_against_ours(rehearsal):
    found = results_of(step, rehearsal)
    assert found["cupy"]["ok"] and found["cupy again"]["ok"], found
    assert found["cupy again"]["losses_apart"] == 0
    assert found["cupy"]["mfu"]["llm.c"] > 0
    assert "| cupy again |" in "\n".join(step.lines({"cupy bf16 tiny": found}))


def test_every_part_is_a_part_and_together_they_take_the_budget():
    import importlib

    found = [importlib.import_module(module).PART for module in MODULES.values()]
    assert [part.name for part in found] == list(MODULES)
    assert sum(part.share for part in found) == pytest.approx(1, abs=0.02)
