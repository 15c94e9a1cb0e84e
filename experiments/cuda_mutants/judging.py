"""Judge a mutant of a kernel: by the ops that it serves, in a process that may crash or hang."""

import multiprocessing
import os
import resource
import signal
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import pytest

from backends.cupy_cuda import _launch
from backends.cupy_cuda._machine import machine
from backends.cupy_cuda.on_cpu import compiler
from experiments.cuda_mutants.mutations import Mutation
from harness.conformance.check import every_op
from harness.conformance.judge import judge
from harness.plugins.loading import load

TEXTS = {path.name: path.read_text(encoding="utf-8") for path in sorted(_launch.FOLDER.iterdir())}
"""The files of cuda/, as they were when this process began."""

ROOT = Path(__file__).resolve().parents[2]
JUDGES = ("conformance", "tests")

ATTENTION = ("attention_forward", "attention_backward")
CLASSIFIER = ("cross_entropy_forward", "cross_entropy_backward")
LAYERNORM = (
    "layernorm_forward",
    "layernorm_backward",
    "residual_layernorm_forward",
    "residual_layernorm_backward",
)
SERVES = {
    "adamw.cu": ("adamw", "adamw_master"),
    "attention_backward.cu": ("attention_backward",),
    "attention_decode.cu": ("attention_decode",),
    "attention_forward.cu": ("attention_forward",),
    "attention_wide.cu": ATTENTION,
    "bias.cu": ("matmul_gelu_forward", "matmul_forward"),
    "cast.cu": ("cast", "stochastic_cast"),
    "columns.cu": ("matmul_backward", "matmul_gelu_backward"),
    "common.cuh": ("gelu_forward", "layernorm_forward", "layernorm_backward"),
    "cross_entropy.cu": (*CLASSIFIER, "matmul_cross_entropy_backward"),
    "embedding.cu": ("embedding_forward", "embedding_backward"),
    "flash.cuh": ATTENTION,
    "gelu.cu": ("gelu_forward", "gelu_backward"),
    "gelu.cuh": ("gelu_forward", "gelu_backward"),
    "guard.cu": ("guard", "clip_scale"),
    "layernorm.cu": LAYERNORM,
    "layernorm.cuh": LAYERNORM,
    "lora.cu": ("lora_forward", "lora_backward"),
    "mma.cuh": ATTENTION,
    "philox.cuh": ("stochastic_cast", "adamw_master"),
    "quads.cuh": ("cast", "squared_norm", "adamw", "stochastic_cast", "embedding_backward"),
    "residual.cu": ("residual_forward", "residual_backward"),
    "rows.cuh": ("softmax_forward", "softmax_backward", *CLASSIFIER, "layernorm_backward"),
    "sgd.cu": ("sgd",),
    "softmax.cu": ("softmax_forward", "softmax_backward"),
    "squared_norm.cu": ("squared_norm",),
    "tile.cuh": ATTENTION,
    "tile_fma.cuh": ATTENTION,
    "tile_mma.cuh": ATTENTION,
}
"""Which half-ops judge a file of cuda/, the likeliest to notice first."""

_UNIT = "tests/unit/cupy_cuda"
TESTED_BY = {
    f"{_UNIT}/test_flat.py": (
        "adamw",
        "cast",
        "gelu",
        "guard",
        "philox",
        "quads",
        "sgd",
        "squared_norm",
    ),
    f"{_UNIT}/test_rows.py": (
        "common",
        "cross_entropy",
        "layernorm",
        "residual",
        "rows",
        "softmax",
    ),
    f"{_UNIT}/test_products.py": ("bias", "columns", "gelu", "lora"),
    f"{_UNIT}/test_embedding.py": ("embedding", "quads"),
    f"{_UNIT}/test_attention.py": (
        *("attention_backward", "attention_decode", "attention_forward", "attention_wide"),
        *("flash", "mma", "tile", "tile_fma", "tile_mma"),
    ),
}
"""The kernels' own tests, which have the shapes that the suite is too small for."""

TENSOR_CORES = {"mma.cuh", "tile_mma.cuh"}

WAYS = (("fp32", 0), ("bf16", 0), ("fp32", 2))
"""Precision and order of threads: first to last, then shuffled, where a missing barrier shows."""

SPARE_S, TESTS_S, MAX_S = 8.0, 90, 300.0
"""When a mutant hangs: seconds beside three times the usual, in the tests, and by the clock."""

MAX_BYTES = 8 << 30


@dataclass
class Fate:
    """What became of a mutant: noticed by `conformance`, `tests`, `crash` or `time`; refused by the
    `compiler`; the `same code` for the machine; or it `survived`."""

    mutation: Mutation
    how: str
    by: str = ""
    seconds: float = 0.0


def ways_of(file: str) -> tuple[tuple[str, int], ...]:
    if file in TENSOR_CORES:
        return (("bf16", 0), ("tf32", 0), ("bf16", 2))
    return WAYS


def accept_unchanged(file: str) -> float:
    """Judge a file as it is; what it compiles to is kept. Returns seconds of this process's own.

    In this process: the children find the cases ready, and the libraries to compare theirs with.
    AssertionError if it is refused.
    """
    started = time.process_time()
    _watch_compiler(_keep)
    how, by = _verdict(file)
    assert how == "survived", f"{file} as it is: {how}, {by}"
    return round(time.process_time() - started, 1)


def fate_of(mutation: Mutation, usual_s: float, judges: Sequence[str] = JUDGES) -> Fate:
    """Judge one mutant in a child. usual_s: what `accept_unchanged` of its file returned, first."""
    context = multiprocessing.get_context("fork")
    ours, theirs = context.Pipe(duplex=False)
    started = time.monotonic()
    child = context.Process(target=_judge_in_child, args=(theirs, mutation, usual_s, judges))
    child.start()
    theirs.close()
    try:
        how, by = ours.recv() if ours.poll(MAX_S) else ("time", f"more than {MAX_S:g} s")
    except EOFError:
        child.join()
        code = child.exitcode or 0
        if code >= 0:
            raise RuntimeError(f"the experiment itself failed at {mutation}") from None
        how = "time" if -code == signal.SIGXCPU else "crash"
        by = signal.Signals(-code).name
    if how == "time" and child.is_alive():
        os.killpg(child.pid or 0, signal.SIGKILL)
    child.join()
    ours.close()
    return Fate(mutation, how, by, round(time.monotonic() - started, 1))


def accept_tests(file: str) -> None:
    """Give the kernels as they are to the tests of a file. AssertionError if one fails."""
    context = multiprocessing.get_context("fork")
    ours, theirs = context.Pipe(duplex=False)
    child = context.Process(target=lambda: theirs.send(first_failing_test(file)))
    child.start()
    theirs.close()
    failed = ours.recv()
    child.join()
    assert not failed, f"{file} as it is: {failed}"


def _judge_in_child(
    result: Connection, mutation: Mutation, usual_s: float, judges: Sequence[str]
) -> None:
    os.setpgid(0, 0)  # its compiler ends with it
    # Of its own, without the compiler's: what takes three times as long as it should hangs.
    limit_s = int(SPARE_S + 3 * usual_s)
    resource.setrlimit(resource.RLIMIT_CPU, (limit_s, 2 * limit_s + TESTS_S))
    resource.setrlimit(resource.RLIMIT_AS, (MAX_BYTES, MAX_BYTES))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    same: list[bool] = []
    _watch_compiler(lambda key, made: same.append(made == _unchanged.get(key)))
    how, by = "survived", ""
    with tempfile.TemporaryDirectory(prefix="cuda-mutants-") as folder:
        change_sources(mutation, Path(folder))
        if "conformance" in judges:
            how, by = _verdict(mutation.file)
            if how == "survived" and all(same):
                how = "same code"
        if "tests" in judges and how == "survived":
            resource.setrlimit(resource.RLIMIT_CPU, (limit_s + TESTS_S, 2 * limit_s + TESTS_S))
            failed = first_failing_test(mutation.file)
            how, by = ("tests", failed) if failed else (how, by)
    result.send((how, by))


def first_failing_test(file: str) -> str:
    """The name of a test in TESTED_BY that fails; empty if none does."""
    machine().order = 0
    name = file.partition(".")[0]
    files = [test for test, sources in TESTED_BY.items() if name in sources]
    failed: list[str] = []

    class Listener:
        def pytest_runtest_logreport(self, report: Any) -> None:
            if report.failed:
                failed.append(report.nodeid)

    with open(os.devnull, "w") as nowhere, redirect_stdout(nowhere):
        # Plain: what is imported already cannot be rewritten, which pytest would warn of.
        options = ["-x", "-q", "-p", "no:cacheprovider", "--assert=plain", f"--rootdir={ROOT}"]
        code = pytest.main([*options, *(str(ROOT / f) for f in files)], plugins=[Listener()])
    if code not in (0, 1) or bool(failed) != (code == 1):
        raise RuntimeError(f"pytest ended with {code} on {files}")
    return failed[0] if failed else ""


def change_sources(mutation: Mutation, folder: Path) -> None:
    """Let every source be as a copy of cuda/ has it in which there is the mistake."""
    load("cupy", every_op())  # a source that is not there yet would be read without the mistake
    for name, text in TEXTS.items():
        changed = mutation.applied(text) if name == mutation.file else text
        (folder / name).write_text(changed, encoding="utf-8")
    for source in _launch.Source.every:
        name = f"{source.name}.cu"
        text = (folder / name).read_text(encoding="utf-8")
        source.text = _launch.with_headers(text, name, folder)
    compile_into(folder)


def _verdict(file: str) -> tuple[str, str]:
    """How the half-ops that a file serves were refused, and by what."""
    ops = every_op()
    backend = load("cupy", ops)
    for precision, order in ways_of(file):
        machine().order = order
        for hook in SERVES[file]:
            found = judge(backend, hook, ops, precision=precision, stop_after=1, limit_s=30)
            if found.status == "passed":
                continue
            failure = found.failures[0] if found.failures else None
            what = f"{failure.law}: {failure.case.id}" if failure else found.reason
            by = f"{hook} {precision} {'shuffled' if order else 'in order'}, {what}"
            return "compiler" if "does not compile" in str(failure) else "conformance", by
    return "survived", ""


_unchanged: dict[Any, bytes] = {}
"""The library that a name and flags give without a mistake."""


def _keep(key: Any, made: bytes) -> None:
    _unchanged[key] = made


def _watch_compiler(see: Callable[[Any, bytes], None]) -> None:
    """Call `see` with name and flags, and the library, of everything compiled from now on."""

    def compile_and_show(name: str, text: str, flags: Any, library: Path) -> None:
        _compile(name, text, flags, library)
        see((name, tuple(flags)), library.read_bytes())

    compiler._compile = compile_and_show


_compile = compiler._compile


def compile_into(folder: Path) -> None:
    """Keep libraries there, and not in the user's cache."""
    os.environ["XDG_CACHE_HOME"] = str(folder)
    compiler._folder.cache_clear()
