"""Runs of the backend `cupy`, its kernels on the CPU: losses, resuming, mixing with others, refusing."""

import functools
import itertools
import os
import re
import signal
import sys

import pytest

from backends.cupy_cuda._machine import machine, on_cpu
from backends.cupy_cuda.on_cpu import compiler
from harness import generate
from harness.cli import main as cli

pytestmark = pytest.mark.skipif(not on_cpu(), reason="held against the emulation, not the GPU")

LEARNS = ["optimizer.lr=1e-3", "schedule=constant"]
DEEPER = "model.layers=2"
OVERFLOWS = ["optimizer=sgd", "optimizer.lr=1e7", "schedule=cosine"]
"""Its gradient's norm passes what float32 can hold in the seventh step."""

TOLERANCE = {
    "fp32": 1e-5,  # of a loss of 5.5: rounding of float32, ten updates long
    "tf32": 1e-3,  # products of numbers with 10 bits
    "bf16": 1e-2,  # of numbers with 7
}


FILE = """
from backends.cupy_cuda import gelu

device, arrays = "cuda", "cupy"
computes = {{"fp32": "f32"}}
{stated}
gelu_forward, gelu_backward = gelu.gelu_forward, gelu.gelu_backward
"""
COUNTING = """
from harness import hookimpl

@hookimpl
def wrap_op(op, backend, call):
    def counted(*arguments):
        with open("calls", "a") as file:
            file.write("x")
        call(*arguments)
    return counted if op == "embedding_backward" else None
"""


@pytest.fixture(scope="module", autouse=True)
def kept_kernels():
    """Compiled kernels are kept where they always are, although a run here has a cache of its own."""
    compiler._folder()


@pytest.fixture
def run(train):
    """A run of ten steps that learn, in a folder of its own; of cupy unless it says otherwise."""
    folders = (f"runs-{number}" for number in itertools.count())

    def one(*overrides, folder=None):
        folder = folder or next(folders)
        settings = ["backend=cupy", "steps=10", *LEARNS, *overrides]
        return train(*settings, f"runs_dir={folder}", runs_dir=folder)

    return one


@pytest.fixture(scope="module")
def known():
    """The losses of runs that others are held against, by their settings: each is run once."""
    return {}


@pytest.fixture
def losses(run, known):
    """The losses of a run with these settings, for those that were asked for before too."""

    def of(*settings):
        if settings not in known:
            known[settings] = numbers(run(*settings))
        return known[settings]

    return of


@pytest.fixture
def formulas(losses):
    """The losses of a run on the float64 formulas."""
    return functools.partial(losses, "backend=reference")


@pytest.fixture
def without_gpu(monkeypatch):
    """A machine without the emulation and without CuPy, whatever is installed on this one."""
    monkeypatch.setenv("HARNESS_CUDA_ON_CPU", "0")
    monkeypatch.setitem(sys.modules, "cupy", None)
    machine.cache_clear()


def numbers(outcome):
    assert outcome.code == 0, outcome.err
    return [float.fromhex(loss) for loss in outcome.losses]


def last_weights(outcome):
    return outcome.weights(outcome.records()[-1]["step"])


def header(outcome, label):
    return [line[10:] for line in outcome.out.splitlines() if line.startswith(f"{label:<10}")]


@pytest.mark.parametrize(
    "settings",
    [
        "precision=fp32",
        "precision=fp32 cupy.matmul=cublas",
        "precision=tf32",
        "precision=tf32 cupy.matmul=cublas",
        "precision=bf16",
        "precision=bf16 cupy.attention=flash",
        "precision=bf16 cupy.matmul=cublas",
    ],
)
def test_its_losses_are_those_of_the_formulas(run, formulas, settings):
    precision = settings.split()[0].partition("=")[2]
    found = numbers(run(DEEPER, *settings.split()))
    assert found == pytest.approx(formulas(DEEPER), abs=TOLERANCE[precision])
    assert found[-1] < found[0] - 0.1


@pytest.mark.parametrize(
    ("precision", "settings"),
    [
        ("bf16", "ops=low_memory recompute=block"),
        ("tf32", "gradient_accumulation=3 recompute=gelu"),
        ("bf16", "optimizer=sgd optimizer.lr=0.1 optimizer.momentum=0.9 clip_norm=null"),
        ("fp32", "model.heads=3 model.channels=15 model.positions=7"),
        ("bf16", "model.heads=3 model.channels=15 model.positions=7"),
        ("bf16", "data.tokenizer=char batch_size=1 sequence_length=1"),
    ],
)
def test_so_they_are_with_other_settings(run, formulas, precision, settings):
    found = numbers(run(*settings.split(), f"precision={precision}"))
    assert found == pytest.approx(formulas(*settings.split()), abs=TOLERANCE[precision])


def test_the_order_of_threads_changes_no_bit(run, monkeypatch):
    settings = ["precision=bf16", "rounding=stochastic", "cupy.attention=flash", "ops=low_memory"]
    first = run(*settings)
    monkeypatch.setattr(machine(), "order", 2)
    shuffled = run(*settings)
    assert numbers(shuffled) == numbers(first)
    assert last_weights(shuffled) == last_weights(first)


@pytest.mark.parametrize(
    "settings",
    [
        "precision=fp32 validate_every=2 sample.every=5 sample.length=4",
        "precision=bf16 rounding=stochastic gradient_accumulation=3 recompute=block",
        "precision=bf16 ops=low_memory optimizer=sgd optimizer.momentum=0.9",
        "precision=tf32 adapter=lora",
        "precision=bf16 model.heads=3 model.channels=15 model.positions=7",
    ],
)
def test_capture_changes_no_bit(run, settings):
    captured, plain = (run(*settings.split(), f"capture={way}") for way in ("auto", "off"))
    assert numbers(captured) == numbers(plain)
    assert captured.records("validation") == plain.records("validation")
    assert last_weights(captured) == last_weights(plain)
    assert header(captured, "capture") == ["the step, after 3 steps"]
    assert header(plain, "capture") == ["off: capture=off"]


def test_where_nothing_clips_and_nothing_is_checked_an_overflow_is_named(run):
    outcome = run(*OVERFLOWS, "clip_norm=null", "optimizer.lr=1e12")
    assert outcome.code == 6 and "is not finite" in outcome.err


@pytest.mark.parametrize("way", ["auto", "off"])
def test_a_step_that_is_not_finite_ends_a_run_before_its_update(run, way):
    outcome = run(*OVERFLOWS, f"capture={way}", "checkpoint_every=1")
    step = int(re.search(r"step (\d+) is not finite", outcome.err)[1])
    assert outcome.code == 6 and "error[not-finite]" in outcome.err
    assert step > 4, "of those that are captured"
    assert [record["step"] for record in outcome.records()] == list(range(1, step))


def test_a_step_that_is_not_finite_is_left_out_when_it_is_replayed(run):
    captured, plain = (
        run(
            *OVERFLOWS,
            "on_nonfinite=skip",
            "checkpoint_every=1",
            f"capture={way}",
            "keep_checkpoints=20",
        )
        for way in ("auto", "off")
    )
    skipped = [record["step"] for record in captured.records() if record["skipped"]]
    assert skipped and min(skipped) > 4
    assert captured.losses == plain.losses
    first = min(skipped)
    assert captured.weights(first) == captured.weights(first - 1)
    assert captured.weights(10) == plain.weights(10)


def test_a_run_that_was_interrupted_in_a_captured_step_goes_on_bit_for_bit(run, monkeypatch):
    settings = ["precision=bf16", "rounding=stochastic", "validate_every=3", "checkpoint_every=3"]
    whole = run(*settings)
    begun, begin_read = 0, type(machine()).begin_read

    def interrupting(self, buffer):
        nonlocal begun
        begun += 1
        if begun == 13:  # a step reads its loss and its norm: within the seventh
            os.kill(os.getpid(), signal.SIGINT)
        return begin_read(self, buffer)

    with monkeypatch.context() as patched:
        patched.setattr(type(machine()), "begin_read", interrupting)
        stopped = run(*settings, folder="stopped")
    assert stopped.code == 130 and len(stopped.records()) == 7
    resumed = run(*settings, "resume=auto", folder="stopped")
    assert "resumed   after step 7" in resumed.out
    assert numbers(resumed) == numbers(whole)
    assert resumed.weights(10) == whole.weights(10)


def test_a_mix_with_numpy_gives_its_losses_and_lists_its_copies(run, losses):
    mixed = run("ops.layernorm=numpy", "transfer=allow")
    assert numbers(mixed) == pytest.approx(losses("backend=numpy"), abs=1e-5)
    copies = header(mixed, "copy")
    assert "embedding.0.out float32 on cuda -> host" in copies
    assert "layernorm.1.out float32 on host -> cuda" in copies
    assert header(mixed, "capture") == [f"off: {len(copies)} copies between devices"]


def test_one_op_of_cupy_among_numpys_gives_their_losses(run, losses):
    mixed = run("backend=numpy", "ops.attention=cupy", "transfer=allow")
    assert numbers(mixed) == pytest.approx(losses("backend=numpy"), abs=1e-5)
    assert "attention.3.out float32 on cuda -> host" in header(mixed, "copy")


def test_half_an_op_may_be_anothers(run, losses):
    mixed = run("ops.layernorm_forward=numpy", "transfer=allow")
    assert numbers(mixed) == pytest.approx(losses(), abs=1e-5)


def test_copies_that_are_not_allowed_are_listed(run):
    outcome = run("ops.layernorm=numpy")
    assert outcome.code == 2 and outcome.out == ""
    assert outcome.err.startswith("error[transfer-refused]")
    assert "embedding.0.out float32 on cuda -> host" in outcome.err
    assert "transfer=allow" in outcome.err


@pytest.mark.parametrize("stated", ["", "capturable = True"])
def test_a_file_may_have_an_op_of_the_same_device(run, losses, workplace, stated):
    (workplace / "mine.py").write_text(FILE.format(stated=stated))
    mixed = run("ops.matmul_gelu=expand", "ops.gelu=./mine.py")
    assert numbers(mixed) == losses("ops.matmul_gelu=expand")
    assert header(mixed, "copy") == []
    (capture,) = header(mixed, "capture")
    assert capture.endswith(
        "the step, after 3 steps" if stated else "mine.py does not state that it is capturable"
    )


def test_a_wrapper_sees_every_call_of_every_step(run, losses, workplace):
    (workplace / "counting.py").write_text(COUNTING)
    wrapped = run("wrappers=[./counting.py]")
    assert numbers(wrapped) == losses()
    assert header(wrapped, "capture") == ["off: a wrapper is to see every call"]
    assert (workplace / "calls").read_text() == "x" * 10


def test_less_memory_than_the_plan_needs_is_refused_before_it_is_taken(run, monkeypatch):
    monkeypatch.setattr(type(machine()), "free_bytes", lambda self: 34 << 20)
    monkeypatch.setattr(
        type(machine()), "empty", lambda self, nbytes: pytest.fail("memory is taken")
    )
    outcome = run("batch_size=64", "scratch_mib=1")
    assert outcome.code == 7 and "error[memory-too-small]" in outcome.err
    for what in ("on cuda", "34.0 MiB", "parameters", "activations", "batch_size="):
        assert what in outcome.err


def test_so_it_is_where_one_op_is_cupys(run, monkeypatch):
    monkeypatch.setattr(type(machine()), "free_bytes", lambda self: 1 << 10)
    outcome = run("backend=numpy", "ops.attention=cupy", "transfer=allow")
    assert outcome.code == 7 and outcome.err.startswith("error[memory-too-small]")
    assert "on cuda" in outcome.err


def test_validation_is_held_against_the_memory_that_is_left(run, monkeypatch):
    asked = itertools.count()
    left = (1 << 30, 1 << 10)  # for the step, and after it
    monkeypatch.setattr(type(machine()), "free_bytes", lambda self: left[min(next(asked), 1)])
    outcome = run("validate_every=5")
    assert outcome.code == 7 and outcome.err.startswith("error[memory-too-small]")
    assert "activations of a forward of" in outcome.err and "on cuda" in outcome.err


@pytest.mark.parametrize(
    "settings", ["backend=cupy", "backend=numpy ops.attention=cupy transfer=allow"]
)
def test_without_a_gpu_a_run_ends_before_it_begins(run, without_gpu, settings):
    outcome = run(*settings.split())
    assert outcome.code == 5 and outcome.out == "" and outcome.folders == []
    assert outcome.err.startswith("error[library-missing] backend 'cupy' needs CuPy")
    assert "HARNESS_CUDA_ON_CPU=1" in outcome.err


def test_without_a_gpu_a_plan_is_made(capsys, without_gpu):
    assert cli(["plan", "backend=cupy", "model=gpt2_124m", "precision=bf16"]) == 0
    out = capsys.readouterr().out
    assert "device      cuda is not here (import of cupy halted; None in sys.modules)" in out
    for part in (
        "adamw_master",
        "trained weights bfloat16 on cuda",
        "attention_backward",
        "weights in bfloat16",
    ):
        assert part in out
    scratch = float(re.search(r"^peak .* scratch ([\d.]+)", out, re.MULTILINE)[1])
    assert scratch >= 32, "the workspace of the matrix products alone"


def test_without_a_gpu_conformance_is_not_run_and_says_why(capsys, without_gpu):
    assert cli(["check", "cupy::gelu"]) == 0
    lines = capsys.readouterr().out.splitlines()
    rows = [line for line in lines if line.startswith("  gelu_")]
    assert len(rows) == 6 and lines[-1] == "6 not run"
    for row in rows:
        assert (
            "not run" in row
            and "needs CuPy, which is not installed (import of cupy halted; None in sys.modules)"
            in row
        )


@pytest.mark.parametrize("settings", ["precision=fp32", "precision=bf16 cache=false"])
def test_a_run_of_cupy_continues_text(run, capfd, monkeypatch, settings):
    model = f"model_from={run().folder}"
    texts = []
    for backend in ("cupy", "numpy"):
        asked = [
            f"backend={backend}",
            *settings.split(),
            "temperature=0",
            "length=12",
            "prompt=The",
        ]
        monkeypatch.setattr(sys, "argv", ["generate.py", model, *asked])
        capfd.readouterr()
        assert generate.main() == 0
        texts.append(capfd.readouterr().out)
    assert texts[0] == texts[1] and len(texts[0]) > len("The")
