"""What `harness doctor` asks of the machine: cores, memory, libraries, environment, folders, devices."""

import importlib.util
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from harness.doctor import LITTLE_MEMORY_BYTES, MISSING, OK, WARN, Line
from harness.errors import ResourceError

COMMAND_TIMEOUT_S = 3.0
TIKTOKEN_FILES = (
    "6d1cbeee0f20b3d9449abfede4726ed8212e3aee",  # vocab.bpe
    "6c7ea1a7e38e3a7f062df639a5b80947f075ffe6",  # encoder.json
)
"""The names that tiktoken gives GPT-2's two files: the SHA-1 of where it takes them from."""

POOLS = ("tbb", "omp", "workqueue")
"""Numba's threading layers in the order in which it tries them."""


def cores() -> Iterator[Line]:
    from harness.bench.machine import cpu_model
    from harness.pinned import LEVELS, processor_level
    from harness.threads import cores_allowed

    allowed, there = cores_allowed(), os.cpu_count() or 1
    level = processor_level()
    vectors = "" if level is None else f", {LEVELS[level]}"
    text = f"{allowed} of {there} may be used; {cpu_model()}{vectors}"
    if allowed < there:
        text += "\naffinity (taskset) or the quota of a container or a job holds the others back"
    yield Line(OK, "cores", text)


def threads() -> Iterator[Line]:
    """What `threads: null` means here, and variables that contradict each other."""
    from harness.threads import asked_by_environment, threads_for

    asked, found = asked_by_environment(), threads_for(None)
    words = ", ".join(f"{name}={count}" for name, count in asked.items())
    if len(set(asked.values())) > 1:
        text = f"{found}: variables contradict each other, and the least counts: {words}"
        yield Line(WARN, "threads", text, f"leave one, or say it once: threads={found.cores}")
    elif found.warning:
        what, *remedies = found.warning.splitlines()
        yield Line(WARN, "threads", f"{found}: {what}", "\n".join(remedies))
    elif any(count > found.cores for count in asked.values()):
        yield Line(WARN, "threads", f"{found}: {words} asks for more, which is not followed")
    else:
        yield Line(OK, "threads", str(found))


def memory() -> Iterator[Line]:
    import psutil  # type: ignore[import-untyped]

    from harness.memory_need import available_bytes, readable

    available = available_bytes()
    text = f"{readable(available)} available of {readable(psutil.virtual_memory().total)}"
    if available < LITTLE_MEMORY_BYTES:
        yield Line(WARN, "memory", text, "end other processes, or raise the container's limit")
    else:
        yield Line(OK, "memory", text)


def libraries() -> Iterator[Line]:
    """Every BLAS that is loaded by now, with NumPy's first."""
    from harness import blas

    found = sorted(blas.libraries(), key=lambda info: not blas.belongs_to(info, "numpy"))
    for info in found:
        file = Path(str(info["filepath"]))
        yield Line(OK, "blas", f"{blas.described(info)}; {file.parent.name}/{file.name}")
    if not found:
        yield Line(WARN, "blas", f"{blas.describe('numpy')}: threads= cannot set them")


def environment() -> Iterator[Line]:
    """Variables that change speed: those that hold something back are warnings."""
    from harness.pinned import SPEED_VARIABLES, facts, pins

    found = pins(facts())
    for pin in found:
        yield Line(WARN if pin.is_slower else OK, "environment", pin.text, pin.do)
    told = {pin.variable for pin in found}
    others = [f"{n}={os.environ[n]}" for n in SPEED_VARIABLES if n not in told and n in os.environ]
    if others:
        yield Line(OK, "environment", f"set, and nothing here is slower: {', '.join(others)}")
    elif not found:
        yield Line(OK, "environment", "no variable holds a library back")


def runs_folder() -> Iterator[Line]:
    """Where a run would write, by default: a folder `runs` here."""
    here = Path("runs") if Path("runs").is_dir() else Path()
    try:
        with tempfile.TemporaryFile(dir=here):
            pass
    except OSError as error:
        text = f"{Path('runs').absolute()} cannot be written to ({error.strerror})"
        yield Line(MISSING, "runs folder", text, "runs_dir=FOLDER", ResourceError.exit_code)
        return
    free = shutil.disk_usage(here or ".").free
    yield Line(OK, "runs folder", f"{Path('runs').absolute()}, {free / 2**30:,.1f} GiB free")


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


def cuda() -> Iterator[Line]:
    needed_by = "only backends of a GPU need one"
    command = shutil.which("nvidia-smi")
    if command is None:
        driver = Path("/proc/driver/nvidia/version").exists()
        what = "a driver, but no nvidia-smi" if driver else "no NVIDIA driver"
        yield Line(MISSING, "cuda", f"{what}; {needed_by}")
        return
    try:
        done = subprocess.run(
            [command, "--query-gpu=name,driver_version,memory.total", "--format=csv,noheader"],
            capture_output=True,
            text=True,
            errors="replace",
            timeout=COMMAND_TIMEOUT_S,
            stdin=subprocess.DEVNULL,
        )
    except (OSError, subprocess.SubprocessError) as error:
        yield Line(WARN, "cuda", f"nvidia-smi does not answer ({error}); {needed_by}")
        return
    if done.returncode != 0:
        answer = (done.stdout + done.stderr).strip().splitlines() or ["nothing"]
        yield Line(WARN, "cuda", f"nvidia-smi says: {answer[0]}; {needed_by}")
        return
    for gpu in done.stdout.strip().splitlines():
        yield Line(OK, "cuda", gpu)


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
    from importlib import metadata

    found = {}
    for name in ("torch", "transformers", "peft"):
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    if len(found) == 3:
        yield Line(OK, "torch", ", ".join(f"{name} {version}" for name, version in found.items()))
        return
    absent = [name for name in ("torch", "transformers", "peft") if name not in found]
    text = f"{', '.join(absent)} not installed; only comparisons with them need it"
    yield Line(MISSING, "torch", text, "pip install 'gpt2-harness[reference]'")
