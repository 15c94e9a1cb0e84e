"""What `harness doctor` asks of the machine: cores, memory, libraries, environment, folders, devices."""

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

from harness.doctor.line import MISSING, OK, WARN, Line
from harness.errors import ResourceError

LITTLE_MEMORY_BYTES = 1 << 30
COMMAND_TIMEOUT_S = 3.0


def cores() -> Iterator[Line]:
    from harness.files.system import cpu_model
    from harness.machine.pinned import LEVELS, processor_level
    from harness.machine.threads import cores_allowed

    allowed, there = cores_allowed(), os.cpu_count() or 1
    level = processor_level()
    vectors = "" if level is None else f", {LEVELS[level]}"
    text = f"{allowed} of {there} may be used; {cpu_model()}{vectors}"
    if allowed < there:
        text += "\naffinity (taskset) or the quota of a container or a job holds the others back"
    yield Line(OK, "cores", text)


def threads() -> Iterator[Line]:
    """What `threads: null` means here, and variables that contradict each other."""
    from harness.machine.threads import asked_by_environment, threads_for

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

    from harness.planning.memory_budget import available_bytes, readable

    available = available_bytes()
    text = f"{readable(available)} available of {readable(psutil.virtual_memory().total)}"
    if available < LITTLE_MEMORY_BYTES:
        yield Line(WARN, "memory", text, "end other processes, or raise the container's limit")
    else:
        yield Line(OK, "memory", text)


def libraries() -> Iterator[Line]:
    """Every BLAS that is loaded by now, with NumPy's first."""
    from harness.machine import blas

    found = sorted(blas.libraries(), key=lambda info: not blas.belongs_to(info, "numpy"))
    for info in found:
        file = Path(str(info["filepath"]))
        yield Line(OK, "blas", f"{blas.described(info)}; {file.parent.name}/{file.name}")
    if not found:
        yield Line(WARN, "blas", f"{blas.describe('numpy')}: threads= cannot set them")


def environment() -> Iterator[Line]:
    """Variables that change speed: those that hold something back are warnings."""
    from harness.machine.pinned import SPEED_VARIABLES, facts, pins

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
