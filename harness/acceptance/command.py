"""`harness gpu-acceptance`: what to prove, on which GPU, and into which record."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from harness.acceptance import record
from harness.acceptance.header import header_of
from harness.acceptance.part import Part, Request
from harness.acceptance.parts import MODULES
from harness.acceptance.progress import Progress
from harness.acceptance.worker import part_of
from harness.acceptance.workers import environment_of
from harness.errors import ConfigError, NumericsError, ResourceError
from harness.machine import nvidia_driver as driver

BUDGET_S = 540.0
PROBE_S = 120.0
BACKENDS = ("cupy", "numba_cuda")
INTO = Path("experiments/gpu_acceptance")


def run_gpu_acceptance(
    parts: Sequence[str] = (),
    *,
    budget_s: float = BUDGET_S,
    resume: bool = False,
    backends: Sequence[str] = BACKENDS,
    into: Path | None = None,
    llmc: Path | None = None,
    peer_python: str | None = None,
    rehearse: bool = False,
    show: Callable[[str], None] = print,
    now: Callable[[], datetime] = lambda: datetime.now(UTC),
) -> int:
    """Run the parts, write the record, and return the exit code.

    parts: names, or all; a test's own is a module. into: the record's folder. llmc: a built
    train_gpt2cu. peer_python: a Python that has PyTorch. rehearse: try the machinery, with kernels on
    the CPU. Exit code 0: every part passed (or was rehearsed); 6: one failed; 7: one is not done.
    Raises ResourceError where there is no GPU.
    """
    begun = time.monotonic()
    chosen = _parts(parts)
    into = _folder(into, rehearse)
    gpu = None if rehearse else _gpu()
    found, unavailable = _probe(backends, rehearse)
    request = Request(found, rehearse, _program(llmc), peer_python)
    header = header_of(request, unavailable, gpu, gpu.name if gpu else record.ON_CPU, now())
    earlier = _earlier(into, header) if resume else None
    file, kept = earlier or (record.new_file(into, _stem(header)), header)
    kept |= {"asked": header["asked"], "absent": unavailable, "budget_s": budget_s}
    progress = Progress(file, kept, chosen, begun, show)
    if earlier:
        show(f"continuing {file}: {', '.join(progress.todo) or 'nothing is missing'}")
    progress.run(request, budget_s)
    for line in kept["goals"]:
        show(line)
    show(f"written: {file}, {file.with_suffix('.md').name}")
    return _exit_code(kept["parts"][name]["status"] for name in chosen)


def _earlier(into: Path, header: Mapping[str, Any]) -> tuple[Path, dict[str, Any]] | None:
    """Today's record, if there is one. Raises ConfigError if it is of another machine or source."""
    same = {key: header[key] for key in ("on", "machine", "commit", "sources")}
    return record.to_resume(into, _stem(header), same)


def _stem(header: Mapping[str, Any]) -> str:
    """How the names of the day's records begin."""
    return f"{header['date']}-{header['device']}"


def _exit_code(statuses: Iterable[str]) -> int:
    found = set(statuses)
    if "failed" in found:
        return NumericsError.exit_code
    return 0 if found <= {"passed", "rehearsed"} else ResourceError.exit_code


def _parts(names: Sequence[str]) -> dict[str, Part]:
    """The requested parts by name. Raises ConfigError for an unknown name."""
    found = {}
    for name in names or MODULES:
        if name not in MODULES and "." not in name:
            raise ConfigError(
                f"no part of an acceptance is called '{name}'",
                slug="unknown-acceptance-part",
                there_are=", ".join(MODULES),
            )
        found[name] = part_of(name)
    return found


def _folder(into: Path | None, rehearse: bool) -> Path:
    """The folder of the record. Raises ConfigError for a rehearsal under experiments/."""
    if not rehearse:
        return into or INTO
    if into is None or "experiments" in into.resolve().parts:
        raise ConfigError(
            "a rehearsal is not a record, and is not written under experiments/",
            slug="rehearsal-is-no-record",
            found="no --into" if into is None else f"--into {into}",
            do="--into FOLDER, of any other name",
        )
    return into


def _gpu() -> driver.Gpu:
    """The GPU to prove. Raises ResourceError where there is none, or kernels run on the CPU instead."""
    on_cpu = driver.computed_on_cpu()
    gpus, reason = driver.gpus()
    if gpus and not on_cpu:
        return gpus[0]
    raise ResourceError(
        "gpu-acceptance was not run: " + ("kernels run on the CPU here" if on_cpu else "no GPU"),
        slug="no-gpu",
        found=f"{on_cpu}, which stands in for a GPU and proves nothing of one"
        if on_cpu
        else reason,
        effect="nothing was judged, and nothing was recorded",
        do="run it on a machine with an NVIDIA GPU"
        + (f", without {on_cpu}" if on_cpu else "")
        + "\nwhat a CPU can show: HARNESS_CUDA_ON_CPU=1 harness check cupy"
        + "\n                     NUMBA_ENABLE_CUDASIM=1 harness check numba_cuda",
    )


def _probe(
    backends: Sequence[str], rehearse: bool
) -> tuple[dict[str, dict[str, Any]], dict[str, str]]:
    """(backend -> what it says of itself, backend -> why it is unavailable)."""
    try:
        done = subprocess.run(
            [sys.executable, "-m", "harness.acceptance.probe", *backends],
            capture_output=True, text=True, errors="replace", timeout=PROBE_S,
            env=environment_of(rehearse), check=True,
        )  # fmt: skip
        said: dict[str, dict[str, Any]] = json.loads(done.stdout.strip().splitlines()[-1])
    except (subprocess.SubprocessError, ValueError, IndexError) as error:
        return {}, dict.fromkeys(backends, f"the probe failed: {error}")
    found = {name: answer for name, answer in said.items() if "unavailable" not in answer}
    return found, {
        n: answer["unavailable"] for n, answer in said.items() if "unavailable" in answer
    }


def _program(llmc: Path | None) -> str | None:
    if llmc is None:
        return None
    if not (llmc.is_file() and os.access(llmc, os.X_OK)):
        raise ConfigError(
            f"--llmc {llmc} is not a program",
            slug="bench-no-llmc",
            expected="llm.c's CUDA trainer, built: train_gpt2cu",
        )
    return str(llmc.resolve())
