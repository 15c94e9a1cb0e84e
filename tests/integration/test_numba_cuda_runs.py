"""Runs of the backend `numba_cuda` in the simulator: losses, mixing with cupy, files, refusing."""

import subprocess
import sys

import pytest

from backends.cupy_cuda._machine import on_cpu
from backends.cupy_cuda.on_cpu import compiler
from backends.numba_cuda._compiled import SIMULATED
from harness.cli import main as cli
from harness.device import stream

pytestmark = pytest.mark.skipif(not SIMULATED, reason="held against the simulator, not a GPU")
beside_cupy = pytest.mark.skipif(not on_cpu(), reason="cupy is on a GPU, and this is the simulator")

SHORT = ["batch_size=1", "sequence_length=3", "steps=5", "optimizer.lr=1e-3", "schedule=constant"]
"""Two steps of it are replayed."""

LAYERNORM = '''
"""out = layernorm(x): a thread for each row."""

import math

import numpy as np
from numba import cuda

from backends.numba_cuda._launch import launch
from harness import hookimpl

device, arrays = "cuda", "numba"
{stated}

@hookimpl
def layernorm_forward(out_NC, mean_N, rstd_N, x_NC, weight_C, bias_C, eps):
    N, C = x_NC.shape
    launch(_forward, N, 1, out_NC, mean_N, rstd_N, x_NC, weight_C, bias_C, eps)


@cuda.jit
def _forward(out_NC, mean_N, rstd_N, x_NC, weight_C, bias_C, eps):
    n, C = cuda.blockIdx.x, x_NC.shape[1]
    mean = np.float32(0)
    for c in range(C):
        mean += x_NC[n, c]
    mean /= np.float32(C)
    variance = np.float32(0)
    for c in range(C):
        variance += (x_NC[n, c] - mean) * (x_NC[n, c] - mean)
    rstd = np.float32(1) / np.float32(math.sqrt(variance / np.float32(C) + eps))
    for c in range(C):
        out_NC[n, c] = (x_NC[n, c] - mean) * rstd * weight_C[c] + bias_C[c]
    mean_N[n], rstd_N[n] = mean, rstd
'''


def numbers(outcome):
    assert outcome.code == 0, outcome.err
    return [float.fromhex(loss) for loss in outcome.losses]


def header(outcome, label):
    return [line[10:] for line in outcome.out.splitlines() if line.startswith(f"{label:<10}")]


@pytest.fixture(scope="module", autouse=True)
def kept_kernels():
    """cupy's compiled kernels are kept where they always are, although a run has a cache of its own."""
    compiler._folder()


@pytest.fixture
def run(train):
    """A short run in a folder of its own."""
    count = iter(range(100))

    def one(*overrides):
        folder = f"runs-{next(count)}"
        return train(*SHORT, *overrides, f"runs_dir={folder}", runs_dir=folder)

    return one


@pytest.fixture
def not_simulated(tmp_path):
    """The commands as they are typed on a machine with neither variable, nor a GPU."""

    def command(*arguments):
        names = ("HARNESS_CUDA_ON_CPU", "NUMBA_ENABLE_CUDASIM")
        without = [word for name in names for word in ("-u", name)]
        return subprocess.run(
            ["env", *without, sys.executable, "-m", *arguments],
            cwd=tmp_path, capture_output=True, text=True, check=False,
        )  # fmt: skip

    return command


@pytest.mark.slow
def test_the_micro_gpt2_has_the_losses_of_numpy(train):
    """Half a minute on two idle cores: 5 steps of 8 tokens, one thread at a time."""
    experiment = ["experiment=numba_cuda_micro", "precision=fp32"]
    found = train(*experiment, small=False, runs_dir="runs")
    losses = numbers(found)
    assert header(found, "capture") == ["the step, after 3 steps"]
    expected = numbers(
        train(*experiment, "backend=numpy", "runs_dir=others", small=False, runs_dir="others")
    )
    assert losses == pytest.approx(expected, abs=1e-5) and len(losses) == 5
    assert losses[-1] < losses[0] - 0.1


@pytest.mark.slow
@beside_cupy
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_the_fast_mix_has_the_losses_of_numpy_and_capture_changes_no_bit(run, precision):
    mix = ["backend=numba_cuda", "ops=fast_mix", f"precision={precision}"]
    captured, plain = (run(*mix, f"capture={way}") for way in ("auto", "off"))
    assert captured.losses == plain.losses
    assert header(captured, "capture") == ["the step, after 3 steps"]
    assert header(captured, "copy") == []
    chosen = {row.split()[0] for row in header(captured, "backends")[0].split(";")[0].split(", ")}
    assert chosen == {"numba_cuda", "cupy"}
    expected = numbers(run("backend=numpy", f"precision={precision}"))
    tolerance = {"fp32": 1e-5, "bf16": 1e-2}[precision]  # as test_cupy_runs.py gives reasons for
    assert numbers(captured) == pytest.approx(expected, abs=tolerance)


def test_the_fast_mix_and_another_backend_disagree(run):
    outcome = run("backend=numba", "ops=fast_mix")
    assert outcome.code == 2
    assert outcome.err.startswith("error[backend-and-ops-disagree] backend=numba")


@beside_cupy
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_ops_of_both_are_in_one_recording(run, precision):
    """Done when the graph is replayed, and not as it is captured: else steps 4 and 5 differ."""
    settings = ["backend=cupy", "ops.matmul_gelu=expand", f"precision={precision}"]
    mix = ["ops.gelu=numba_cuda", "ops.guard=numba_cuda"]
    captured, plain = (run(*settings, *mix, f"capture={way}") for way in ("auto", "off"))
    assert header(captured, "capture") == ["the step, after 3 steps"]
    assert captured.losses == plain.losses
    tolerance = {"fp32": 1e-5, "bf16": 1e-2}[precision]
    assert numbers(captured) == pytest.approx(numbers(run(*settings)), abs=tolerance)


@beside_cupy
@pytest.mark.parametrize("stated", ["", "capturable = True"])
def test_a_file_of_numba_kernels_runs_beside_cupy(run, workplace, stated):
    (workplace / "mine.py").write_text(LAYERNORM.format(stated=stated))
    parts = ["ops.residual_layernorm=expand"]
    alone = run("backend=cupy", *parts)
    mixed = run("backend=cupy", *parts, "ops.layernorm_forward=./mine.py")
    assert numbers(mixed) == pytest.approx(numbers(alone), abs=1e-5)
    assert header(mixed, "copy") == []
    (capture,) = header(mixed, "capture")
    assert capture.endswith(
        "the step, after 3 steps" if stated else "mine.py does not state that it is capturable"
    )


def test_a_file_of_numba_kernels_is_judged_alone(workplace, capsys):
    (workplace / "mine.py").write_text(LAYERNORM.format(stated=""))
    assert cli(["check", "./mine.py"]) == 0
    assert "1 passed" in capsys.readouterr().out


@beside_cupy
def test_a_simulator_beside_a_gpu_is_refused(run, monkeypatch):
    opened = stream._Opened("cupy", "HARNESS_CUDA_ON_CPU", stream.Stream(0x57))
    monkeypatch.setitem(stream._opened, "cuda", opened)
    from backends.numba_cuda._machine import machine

    machine.cache_clear()
    try:
        outcome = run("backend=numba_cuda")
    finally:
        machine.cache_clear()
    assert outcome.code == 2 and outcome.folders == []
    assert outcome.err.startswith(
        "error[stand-in-beside-a-device] backend 'cupy' computes on a GPU, "
        "and 'numba_cuda' on the CPU in a GPU's place"
    )
    assert "HARNESS_CUDA_ON_CPU=1 and NUMBA_ENABLE_CUDASIM=1" in outcome.err


NO_GPU = ("library-missing", "no-gpu")


@pytest.mark.parametrize(
    "settings", ["backend=numba_cuda", "backend=numpy ops.gelu=numba_cuda transfer=allow"]
)
def test_without_a_gpu_a_run_ends_before_it_begins(not_simulated, settings):
    done = not_simulated("harness.train", "experiment=micro_gpt2", *settings.split())
    assert done.returncode in (5, 7) and done.stdout == ""
    assert done.stderr.startswith(tuple(f"error[{slug}] backend 'numba_cuda'" for slug in NO_GPU))
    assert "NUMBA_ENABLE_CUDASIM=1 runs the same kernels" in done.stderr


def test_without_a_gpu_a_plan_is_made_and_conformance_says_why_it_is_not_run(not_simulated):
    plan = not_simulated("harness.cli", "plan", "backend=numba_cuda")
    assert plan.returncode == 0, plan.stderr
    assert "device      cuda is not here" in plan.stdout
    check = not_simulated("harness.cli", "check", "numba_cuda::gelu")
    assert check.returncode == 0, check.stderr
    lines = [line for line in check.stdout.splitlines() if line.startswith("  gelu_")]
    assert len(lines) == 4
    assert all("not run" in line and "backend 'numba_cuda' needs" in line for line in lines)
