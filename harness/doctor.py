"""`harness doctor`: how this machine stands, a line a topic: ok, warn or missing, each with a remedy.

Everything is tried, nothing is changed. The exit code is 0 if what the default run needs works, and that
of the first thing that does not otherwise; a broken backend that nobody asked for is only a warning.
"""

import json
import os
import platform
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from importlib import metadata
from typing import Any

from harness import __version__
from harness.errors import HarnessError, PluginError, ResourceError

OK, WARN, MISSING = "ok", "warn", "missing"
PYTHONS = ((3, 11), (3, 14))
SHOWN_PACKAGES = ("numpy", "scipy", "numba", "torch", "cupy", "threadpoolctl", "tiktoken")
LITTLE_MEMORY_BYTES = 1 << 30
DISTRIBUTION = "gpt2-harness"
NEEDED = ("packages", "backends", "default run")
UNFORESEEN = 1


@dataclass(frozen=True)
class Line:
    """do: what to type, where something is wrong. exit_code: of the default run, if it fails by it."""

    status: str
    topic: str
    text: str
    do: str = ""
    exit_code: int = 0

    def __str__(self) -> str:
        first, *others = self.text.splitlines() or [""]
        others += [f"do: {remedy}" for remedy in self.do.splitlines()]
        return "\n".join(
            [f"{self.status:<8} {self.topic:<11} {first}", *(f"{'':21}{text}" for text in others)]
        )


@dataclass
class Measured:
    """Numbers of this examination, for --json."""

    seconds: float = 0.0
    first_step_ms: float | None = None
    matmul_gflops_per_s: float | None = None
    one_thread_gflops_per_s: float | None = None
    coretype_cost: float | None = None


def run_doctor(*, as_json: bool = False, show: Callable[[str], None] = print) -> int:
    """Examine, print, and give the exit code."""
    measured, lines = Measured(), []
    begin = time.perf_counter()
    if not as_json:
        show(f"harness {__version__} on {platform.system()} {platform.machine()}\n")
    for line in examine(measured):
        lines.append(line)
        if not as_json:
            show(str(line))
    measured.seconds = round(time.perf_counter() - begin, 2)
    code = next((line.exit_code for line in lines if line.exit_code), 0)
    if as_json:
        record = {
            "harness": __version__,
            "exit_code": code,
            "lines": [asdict(line) for line in lines],
            "measured": asdict(measured),
        }
        show(json.dumps(record, indent=2, allow_nan=False))
        return code
    counts = {status: sum(x.status == status for x in lines) for status in (OK, WARN, MISSING)}
    verdict = "the default run works" if code == 0 else "the default run does NOT work"
    show("\n" + ", ".join(f"{n} {status}" for status, n in counts.items()) + f": {verdict}")
    return code


def examine(measured: Measured) -> Iterator[Line]:
    """Every line, in the order in which one thing builds on another."""
    from harness import doctor_machine, doctor_speed

    topics: tuple[tuple[str, Callable[[], Iterator[Line]]], ...] = (
        ("python", _python),
        ("packages", _packages),
        ("cores", doctor_machine.cores),
        ("threads", doctor_machine.threads),
        ("memory", doctor_machine.memory),
        ("backends", _backends),  # loads them, and so the libraries that follow
        ("blas", doctor_machine.libraries),
        ("environment", doctor_machine.environment),
        ("default run", lambda: _default_run(measured)),
        ("runs folder", doctor_machine.runs_folder),
        ("numba", doctor_machine.numba),
        ("cuda", doctor_machine.cuda),
        ("tiktoken", doctor_machine.tiktoken_files),
        ("torch", doctor_machine.torch),
        ("matmul", lambda: doctor_speed.matmul(measured)),
        ("peaks", doctor_speed.peaks),
    )
    for topic, lines in topics:
        try:
            yield from lines()
        except Exception as error:  # one topic that cannot be found out hides no other
            if os.environ.get("HARNESS_TRACEBACK"):
                raise
            text = f"could not be found out ({type(error).__name__}: {error})"
            is_needed = topic in NEEDED
            status, code = (MISSING, UNFORESEEN) if is_needed else (WARN, 0)
            yield Line(status, topic, text, "HARNESS_TRACEBACK=1 harness doctor shows where", code)


def _python() -> Iterator[Line]:
    text = f"{platform.python_version()} {platform.python_implementation()}, {sys.executable}"
    least, below = PYTHONS
    if least <= sys.version_info[:2] < below:
        yield Line(OK, "python", text)
    else:
        wanted = f"{least[0]}.{least[1]} or later, below {below[0]}.{below[1]}"
        yield Line(MISSING, "python", text, f"use {wanted}", ResourceError.exit_code)


def _packages() -> Iterator[Line]:
    """Those that the harness requires have to be there; shown are the ones that matter for speed."""
    try:
        requires = metadata.requires(DISTRIBUTION) or []
    except metadata.PackageNotFoundError:
        yield Line(
            MISSING,
            "packages",
            f"{DISTRIBUTION} is not installed, so it has no backends",
            "uv sync, or pip install -e . in its checkout",
            PluginError.exit_code,
        )
        return
    needed = [_name(text) for text in requires if "extra ==" not in text]
    absent = [name for name in needed if _version(name) is None]
    versions = {name: _version(name) for name in SHOWN_PACKAGES}
    shown = ", ".join(f"{name} {version}" for name, version in versions.items() if version)
    if absent:
        do = f"pip install {' '.join(absent)}"
        text = f"not installed: {', '.join(absent)}"
        yield Line(MISSING, "packages", text, do, ResourceError.exit_code)
    else:
        yield Line(OK, "packages", shown)


def _name(requirement: str) -> str:
    """hydra-core of `hydra-core>=1.3.2`"""
    end = next((i for i, c in enumerate(requirement) if not (c.isalnum() or c in "-_.")), None)
    return requirement[:end]


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _backends() -> Iterator[Line]:
    from harness.plugins import all_ops, installed, load

    needed = _default_backends()
    for name in sorted({*installed(), *needed}):
        begin = time.perf_counter()
        try:
            backend = load(name, all_ops())
        except HarnessError as error:
            reason = error.facts.get("reason", "")
            text = f"{name}: {error.headline}" + (f"\n{reason}" if reason else "")
            if name in needed:
                yield Line(MISSING, "backend", text, "reinstall it", error.exit_code)
            else:
                do = "nothing, unless you want it: runs that do not name it work"
                yield Line(WARN, "backend", text, error.facts.get("do", do))
            continue
        took_s = time.perf_counter() - begin
        text = f"{name}: {_halves(backend)} half-ops, {backend.source}, loaded in {took_s:.1f} s"
        yield Line(OK, "backend", text)


def _default_backends() -> set[str]:
    """What the default run computes with."""
    from harness import command_line

    (run,) = command_line.check([])
    return {run.backend}


def _halves(backend: Any) -> int:
    from harness.device import HOOKS

    return sum(hook not in HOOKS for hook in backend.functions)


def _default_run(measured: Measured) -> Iterator[Line]:
    """Its first step: configuration, data, plan, memory, kernels."""
    from harness import command_line
    from harness.config import model_of, trainer_settings
    from harness.data import Sequences
    from harness.plugins import all_ops
    from harness.run import load_data
    from harness.threads import using_threads
    from harness.trainer import Trainer

    try:
        (run,) = command_line.check([])
        data = load_data(run)
        trainer = Trainer(trainer_settings(run, model_of(run, data.vocab_size)), all_ops())
        sequences = Sequences(data.train, trainer.settings.sequence_length, run.seed)
        x_BT, y_BT = sequences.take(0, run.batch_size)
        with using_threads(run.threads, trainer.dispatch.backends):
            begin = time.perf_counter()
            loss = trainer.step(x_BT, y_BT, learning_rate=run.optimizer.lr).loss
            measured.first_step_ms = round(1e3 * (time.perf_counter() - begin), 1)
    except HarnessError as error:
        text = f"its first step ends with error[{error.slug}] {error.headline}"
        do = error.facts.get("do", "")
        yield Line(MISSING, "default run", text, do, error.exit_code)
        return
    text = (
        f"the first step of python -m harness.train: loss {loss:.3f}, {measured.first_step_ms} ms"
    )
    yield Line(OK, "default run", text)
