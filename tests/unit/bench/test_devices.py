"""What is on a device is timed by the device's clock, and held against what the device reaches."""

import json

import numpy as np
import pytest

from harness.bench import op_times
from harness.bench.cases import Bound, Shape, make_case
from harness.bench.device_clock import DeviceClock
from harness.bench.ops import run_bench_ops
from harness.bench.report import as_json, as_markdown, as_text
from harness.bench.roofline import Work, score
from harness.bench.timing import once
from harness.contract.precision import BFLOAT16
from harness.machine.device_peaks import UNKNOWN_CACHE_BYTES, DevicePeaks, best_of, device_peaks
from harness.machine.nvidia_driver import CPU_VARIABLES
from harness.plugins.loading import Backend, load

RATES = {
    "copy_bytes_per_s": 4e12,
    "fp32_flops_per_s": 5e13,
    "tf32_flops_per_s": 4e14,
    "bf16_flops_per_s": 8e14,
}


def fake_backend(seconds, captures):
    """A device whose clock counts a microsecond for each call, and ten for the host's launching."""
    asked = []

    def device_seconds(call):
        before = len(asked)
        call()
        return 1e-6 * (len(asked) - before) + 10e-6

    def capture(calls):
        return lambda: [call() for call in calls]

    functions = {"device_seconds": device_seconds}
    if captures:
        functions["capture"] = capture
    backend = Backend(
        "fake", "card", "fake", {"fp32": "f32"}, functions, "here", capturable=captures
    )
    return backend, lambda: asked.append(1)


@pytest.mark.parametrize("captures", [True, False])
def test_a_short_call_is_asked_for_many_times_between_two_marks(captures):
    backend, call = fake_backend(1e-6, captures)
    clock = DeviceClock(backend, call)
    # 1 us and a hundredth part of the ten for launching, not 11.
    assert clock() == pytest.approx(1.1e-6, rel=0.01)
    assert clock() == pytest.approx(1.1e-6, rel=0.01)


def test_a_call_with_a_clock_of_its_own_is_timed_by_that():
    class Call:
        device_seconds = staticmethod(lambda: 42.0)

        def __call__(self):
            raise AssertionError("it is not for the host's clock")

    assert once(Call()) == 42.0


def test_the_host_has_no_device_clock(ops):
    assert DeviceClock.of(load("numpy", ops), lambda: None) is None
    assert device_peaks(load("numpy", ops)) is None


def test_per_cent_are_of_the_precision_s_own_rate():
    work = Work(moved_bytes=4_000_000_000, flops=8 * 10**11)
    peaks = {p: DevicePeaks("b", "cuda", p, RATES, 50 << 20) for p in ("fp32", "bf16")}
    assert score(work, 2e-3, peaks["bf16"]).matmul_percent == pytest.approx(50)
    assert score(work, 2e-3, peaks["bf16"]).copy_percent == pytest.approx(50)
    assert score(work, 2e-3, peaks["fp32"]).bound == "compute"
    assert score(work, 2e-3, peaks["bf16"]).bound == "memory"


def test_a_case_below_four_caches_of_the_device_is_in_cache():
    peaks = DevicePeaks("b", "cuda", "bf16", RATES, 50 << 20)
    assert score(Work((200 << 20) - 1, 0), 1e-3, peaks).in_cache
    assert not score(Work(200 << 20, 0), 1e-3, peaks).in_cache


def test_two_backends_of_one_device_are_held_against_the_best_that_either_reached():
    library = DevicePeaks("cupy", "cuda", "bf16", RATES, 30 << 20)
    slow = {"copy_bytes_per_s": 5e12, "fp32_flops_per_s": 1e13, "bf16_flops_per_s": 1e13}
    own = DevicePeaks("own", "cuda", "bf16", slow, UNKNOWN_CACHE_BYTES)
    other = DevicePeaks("other", "card", "bf16", slow, 1 << 20)
    found = best_of({"cupy": library, "own": own, "other": other})
    assert found["cupy"] == found["own"]
    assert found["own"].rates == {**RATES, "copy_bytes_per_s": 5e12}
    assert (found["own"].backend, found["own"].cache_bytes) == ("cupy+own", 30 << 20)
    assert found["other"] == other


def test_times_of_kernels_on_the_cpu_say_that_they_are_of_no_gpu(monkeypatch, peaks):
    devices = {"cupy": DevicePeaks("cupy", "cuda", "fp32", RATES, 30 << 20)}
    monkeypatch.setenv("NUMBA_ENABLE_CUDASIM", "1")
    for shown in (as_text, as_markdown):
        assert "NUMBA_ENABLE_CUDASIM=1: kernels ran on the CPU" in shown([], peaks, devices)
        assert "ran on the CPU" not in shown([], peaks, {})
    assert "their times are of no GPU" in as_json([], peaks, devices)["on_cpu"]
    for name in CPU_VARIABLES:
        monkeypatch.delenv(name, raising=False)
    assert "ran on the CPU" not in as_text([], peaks, devices)
    assert "on_cpu" not in as_json([], peaks, devices)


def test_a_bf16_case_has_bf16_buffers_and_is_checked_as_such(ops):
    op = ops["gelu"]
    shape = Shape("small", {"N": 8, "F": 16})
    case = make_case(op, op.forward, shape, precision="bf16")
    assert case.values["x_NF"].dtype == BFLOAT16
    bound = Bound(load("cupy", ops), case)
    assert 0 < bound.check() <= 1
    assert bound.device_seconds() > 0
    wrong = {"out_NF": np.zeros((8, 16), BFLOAT16)}
    assert case.error(wrong, "f32")[0] > 1


def test_ops_of_a_device_are_listed_against_its_own_rates(tmp_path, peaks):
    shown = []
    code = run_bench_ops(
        ["cupy", "reference"], ["residual_forward"], shapes="small", precision="bf16", budget_s=0.01,
        report=tmp_path / "r", peaks=peaks, show=shown.append,
    )  # fmt: skip
    record = json.loads((tmp_path / "r.json").read_text())
    rows = {row["backend"]: row for row in record["rows"]}
    assert code == 0, shown
    assert "residual_forward N64 C64 bf16" in "\n".join(shown)
    assert "cuda by cupy, now: copy" in "\n".join(shown)
    assert rows["cupy"]["host_s"] > 0 and "host_s" not in rows["reference"]
    copied = record["devices"]["cupy"]["rates"]["copy_bytes_per_s"]
    moved = rows["cupy"]["work"]["moved_bytes"] / rows["cupy"]["timing"]["median_s"]
    assert rows["cupy"]["score"]["copy_percent"] == pytest.approx(100 * moved / copied)
    assert rows["cupy"]["work"]["moved_bytes"] == 3 * 2 * 64 * 64


def test_half_ops_of_a_step_are_timed_by_the_device_s_clock(monkeypatch):
    monkeypatch.setattr(op_times, "spent", {})
    monkeypatch.setattr(op_times, "device_seconds", lambda call: call() or 7.0)
    called = []
    timed = op_times.wrap_op("gelu_forward", "cupy", lambda *a: called.append(a))
    timed(1, 2)
    timed(3, 4)
    assert called == [(1, 2), (3, 4)]
    assert (op_times.spent["gelu_forward"].calls, op_times.spent["gelu_forward"].seconds) == (
        2,
        14.0,
    )
