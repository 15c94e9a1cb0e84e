"""What `harness doctor` asks of the software: Python, packages, backends, and the default run."""

import importlib.util
import os
import platform
import sys
import tempfile
import time
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.doctor.line import MISSING, OK, WARN, Line, Measured
from harness.errors import HarnessError, PluginError, ResourceError

if TYPE_CHECKING:
    from harness.plugins.loading import Backend

PYTHONS = ((3, 11), (3, 14))
DISTRIBUTION = "gpt2-harness"
SHOWN_PACKAGES = ("numpy", "scipy", "numba", "torch", "cupy", "threadpoolctl", "tiktoken")
REFERENCES = ("torch", "transformers", "peft")
TIKTOKEN_FILES = (
    "6d1cbeee0f20b3d9449abfede4726ed8212e3aee",  # vocab.bpe
    "6c7ea1a7e38e3a7f062df639a5b80947f075ffe6",  # encoder.json
)
"""The names that tiktoken gives GPT-2's two files: the SHA-1 of where it takes them from."""

POOLS = ("tbb", "omp", "workqueue")
"""Numba's threading layers in the order in which it tries them."""


def python() -> Iterator[Line]:
    text = f"{platform.python_version()} {platform.python_implementation()}, {sys.executable}"
    least, below = PYTHONS
    if least <= sys.version_info[:2] < below:
        yield Line(OK, "python", text)
    else:
        wanted = f"{least[0]}.{least[1]} or later, below {below[0]}.{below[1]}"
        yield Line(MISSING, "python", text, f"use {wanted}", ResourceError.exit_code)


def packages() -> Iterator[Line]:
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


def backends() -> Iterator[Line]:
    from harness.plugins.loading import all_ops, installed, load

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
        yield _with_its_device(backend, text)


def _with_its_device(backend: "Backend", text: str) -> Line:
    """A backend that is there, and whether what it computes on is."""
    if backend.device == "host":
        return Line(OK, "backend", text)
    try:
        backend.open_device().empty(256)
        describe = backend.functions.get("describe_libraries")
        return Line(OK, "backend", f"{text}\n{describe()}" if describe else text)
    except HarnessError as error:
        reason = error.facts.get("reason", "")
        text += f"\n{error.headline}" + (f"\n{reason}" if reason else "")
        return Line(MISSING, "backend", text, error.facts.get("do", ""))


def default_run(measured: Measured) -> Iterator[Line]:
    """Its first step: configuration, data, plan, memory, kernels."""
    from harness.config import command_line
    from harness.config.config import model_of, trainer_settings
    from harness.data import Sequences
    from harness.machine.threads import using_threads
    from harness.plugins.loading import all_ops
    from harness.run.data import load_data
    from harness.training.trainer import Trainer

    try:
        (run,) = command_line.check([])
        data = load_data(run)
        trainer = Trainer(trainer_settings(run, model_of(run, data.vocab_size)), all_ops())
        sequences = Sequences(data.train, trainer.settings.sequence_length, run.seed)
        x_BT, y_BT = sequences.take(0, run.batch_size)
        with using_threads(run.threads, trainer.plan.dispatch.backends):
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


def numba() -> Iterator[Line]:
    if importlib.util.find_spec("numba") is None:
        yield Line(
            MISSING, "numba", "not installed; the backend numba needs it", "pip install numba"
        )
        return
    import numba as installed

    config: Any = installed.config
    pools = [name for name in POOLS if _is_pool(name)]
    text = (
        f"{installed.__version__}: {config.NUMBA_NUM_THREADS} threads at most, "
        f"layer {config.THREADING_LAYER}, there are {', '.join(pools) or 'none'}"
    )
    if not pools:
        yield Line(WARN, "numba", text, "reinstall numba: without a layer nothing runs in parallel")
        return
    yield Line(OK, "numba", text)
    folder = _numba_cache()
    if folder is None:
        text = "no folder for compiled kernels can be written: every process compiles them again"
        yield Line(WARN, "numba cache", text, "NUMBA_CACHE_DIR=FOLDER")
    else:
        yield Line(OK, "numba cache", str(folder))


def tiktoken_files() -> Iterator[Line]:
    """GPT-2's two files, in the folder where tiktoken would look."""
    set_by = next((n for n in ("TIKTOKEN_CACHE_DIR", "DATA_GYM_CACHE_DIR") if n in os.environ), "")
    default = os.path.join(tempfile.gettempdir(), "data-gym-cache")
    folder = Path(os.environ.get(set_by, default))
    absent = [name for name in TIKTOKEN_FILES if not (folder / name).is_file()]
    if not absent:
        yield Line(OK, "tiktoken", f"GPT-2's files are in {folder}")
        return
    text = f"GPT-2's files are not in {folder}; only tokenizer gpt2 needs them"
    do = "it takes them from the network when it is first used; keep them with TIKTOKEN_CACHE_DIR"
    yield Line(MISSING, "tiktoken", text, do)


def torch() -> Iterator[Line]:
    versions = {name: _version(name) for name in REFERENCES}
    absent = [name for name, version in versions.items() if version is None]
    if absent:
        text = f"{', '.join(absent)} not installed; only comparisons with them need it"
        yield Line(MISSING, "torch", text, "pip install 'gpt2-harness[reference]'")
    else:
        yield Line(OK, "torch", ", ".join(f"{name} {v}" for name, v in versions.items()))


def _name(requirement: str) -> str:
    """hydra-core of `hydra-core>=1.3.2`"""
    end = next((i for i, c in enumerate(requirement) if not (c.isalnum() or c in "-_.")), None)
    return requirement[:end]


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _default_backends() -> set[str]:
    """What the default run computes with."""
    from harness.config import command_line

    (run,) = command_line.check([])
    return {run.backend}


def _halves(backend: Any) -> int:
    from harness.device import HOOKS

    return sum(hook not in HOOKS for hook in backend.functions)


def _is_pool(name: str) -> bool:
    module = {"tbb": "tbbpool", "omp": "omppool"}.get(name, name)
    try:
        importlib.import_module(f"numba.np.ufunc.{module}")
    except Exception:  # built for a library that is not here
        return False
    return True


def _numba_cache() -> Path | None:
    """Where Numba would keep what it compiles for a backend: as it looks for it itself."""
    chosen = os.environ.get("NUMBA_CACHE_DIR")
    if chosen:
        return Path(chosen) if _is_writable(Path(chosen)) else None
    found = importlib.util.find_spec("backends.numba_cpu")
    beside = Path(found.origin).parent / "__pycache__" if found and found.origin else Path()
    home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "numba"
    return next((folder for folder in (beside, home) if _is_writable(folder)), None)


def _is_writable(folder: Path) -> bool:
    """Whether it can be written to, or made."""
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    return folder.is_dir() and os.access(folder, os.W_OK | os.X_OK)
