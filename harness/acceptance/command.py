"""`harness gpu-acceptance`: part after part, within one budget, and the record after each."""

import importlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from harness.acceptance import record, report
from harness.acceptance.header import header_of
from harness.acceptance.part import Part, Request
from harness.acceptance.parts import MODULES
from harness.acceptance.workers import environment_of, run_part
from harness.errors import ConfigError, NumericsError, ResourceError
from harness.machine import nvidia_driver as driver

BUDGET_S = 540.0
RESERVE_S = 12.0  # for ending the last part's processes, and the record
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
    """Ask the device what the parts ask, write the record, and give the exit code.

    parts: names, or all; a test's own is a module. into: the record's folder. llmc: a built
    train_gpt2cu. peer_python: that has PyTorch. rehearse: try the machinery, with kernels on the CPU.
    Exit code 0: every part passed (or was rehearsed); 6: one failed; 7: one is not done.
    Raises ResourceError where there is no GPU.
    """
    begun = time.monotonic()
    chosen = _parts(parts)
    into = _folder(into, rehearse)
    gpu = None if rehearse else _gpu()
    found, unavailable = _probe(backends, rehearse)
    request = Request(
        backends=found,
        rehearsal=rehearse,
        llmc=_program(llmc),
        peer_python=peer_python,
    )
    on = gpu.name if gpu else record.ON_CPU
    header = header_of(request, unavailable, gpu, on, now())
    stem = f"{header['date']}-{gpu.slug if gpu else 'cuda-on-the-cpu'}"
    same = {key: header[key] for key in ("on", "machine", "commit", "sources")}
    earlier = record.to_resume(into, stem, same) if resume else None
    file, kept = earlier or (record.new_file(into, stem), header)
    kept |= {"asked": header["asked"], "absent": unavailable, "budget_s": budget_s}
    todo = [name for name in chosen if not _is_done(kept["parts"].get(name))]
    if earlier:
        show(f"going on with {file}: {', '.join(todo) or 'nothing is missing'}")
    spent_before = kept["seconds"]

    def save() -> None:
        kept["seconds"] = spent_before + time.monotonic() - begun
        kept["goals"] = report.goal_lines(kept)
        shown = {name: chosen.get(name) or _parts([name])[name] for name in kept["parts"]}
        record.write(file, kept, report.as_markdown(kept, shown))

    for name in chosen:
        kept["parts"].setdefault(name, _part_record("not run", "the time was over before it", {}))
    save()
    for name in todo:
        left_s = budget_s - RESERVE_S - (time.monotonic() - begun)
        rest = todo[todo.index(name) :]
        limit_s = left_s * chosen[name].share / sum(chosen[other].share for other in rest)
        if limit_s <= 1:
            show(f"{name}: not run, the time is over")
            continue
        show(f"{name}: {chosen[name].question} ({limit_s:.0f} s at most)")
        _run(chosen[name], name, request, limit_s, kept, save)
        save()
        show(f"{name}: {_told(kept['parts'][name], on)}")
    for line in kept["goals"]:
        show(line)
    show(f"written: {file}, {file.with_suffix('.md').name}")
    return _exit_code(kept["parts"][name]["status"] for name in chosen)


def _run(
    part: Part,
    name: str,
    request: Request,
    limit_s: float,
    kept: dict[str, Any],
    save: Callable[[], None],
) -> None:
    """Run a part, and keep what it finds, while it finds it."""
    earlier = kept["parts"][name]
    start, before_s = time.monotonic(), earlier["seconds"]

    def keep(results: dict[str, Any], complete: bool) -> None:
        status, reason = record.status_of(results, complete=complete, on_cpu=request.rehearsal)
        seconds = before_s + time.monotonic() - start
        kept["parts"][name] = _part_record(status, reason, results, seconds, limit_s)

    def tell(results: dict[str, Any]) -> None:
        keep(results, complete=False)
        save()

    if not request.backends:
        kept["parts"][name] = _part_record("not run", "no backend can be opened", {})
        return
    found = run_part(part, name, request, limit_s, earlier["lanes"], tell)
    keep(found.results, found.complete)


def _part_record(
    status: str, reason: str, results: dict[str, Any], seconds: float = 0.0, limit_s: float = 0.0
) -> dict[str, Any]:
    return {
        "status": status,
        "reason": reason,
        "seconds": seconds,
        "limit_s": limit_s,
        "lanes": results,
    }


def _is_done(found: dict[str, Any] | None) -> bool:
    return found is not None and found["status"] not in ("out of time", "not run")


def _told(found: dict[str, Any], on: str) -> str:
    status = found["status"] + (f" ({on})" if on == record.ON_CPU else "")
    reason = f": {found['reason']}" if found["reason"] else ""
    return f"{status}, {found['seconds']:.0f} s{reason}"


def _exit_code(statuses: Any) -> int:
    found = set(statuses)
    if "failed" in found:
        return NumericsError.exit_code
    return 0 if found <= {"passed", "rehearsed"} else ResourceError.exit_code


def _parts(names: Sequence[str]) -> dict[str, Part]:
    """The parts by the names they were asked for. Raises ConfigError for one that there is none of."""
    found = {}
    for name in names or MODULES:
        if name not in MODULES and "." not in name:
            raise ConfigError(
                f"no part of an acceptance is called '{name}'",
                slug="unknown-acceptance-part",
                there_are=", ".join(MODULES),
            )
        found[name] = importlib.import_module(MODULES.get(name, name)).PART
    return found


def _folder(into: Path | None, rehearse: bool) -> Path:
    """Where the record is written. Raises ConfigError for a rehearsal among the records."""
    if not rehearse:
        return into or INTO
    if into is None or "experiments" in into.resolve().parts:
        raise ConfigError(
            "a rehearsal is no record, and is not written under experiments/",
            slug="rehearsal-is-no-record",
            found="no --into" if into is None else f"--into {into}",
            do="--into FOLDER, of any other name",
        )
    return into


def _gpu() -> driver.Gpu:
    """The GPU that is asked. Raises ResourceError where there is none, or it would not be asked."""
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
    """(backend -> what it says of itself, backend -> why it cannot be asked)."""
    try:
        done = subprocess.run(
            [sys.executable, "-m", "harness.acceptance.probe", *backends],
            capture_output=True, text=True, errors="replace", timeout=PROBE_S,
            env=environment_of(rehearse), check=True,
        )  # fmt: skip
        said: dict[str, dict[str, Any]] = json.loads(done.stdout.strip().splitlines()[-1])
    except (subprocess.SubprocessError, ValueError, IndexError) as error:
        return {}, dict.fromkeys(backends, f"it could not be asked: {error}")
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
