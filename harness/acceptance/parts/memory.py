"""Does a step take the memory that the plan says, and touch no other? (compute-sanitizer, if installed)

Its tools run a small case of every half-op that is the backend's own kernel. memcheck finds addresses
outside of an allocation; racecheck finds two threads of a block that use the same shared memory without
a barrier. Both slow a kernel down tens of times. Arrays that share one arena are guarded by the
conformance cases, which check what lies around every buffer.
"""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from functools import partial

from harness.acceptance.part import Check, Part, Request, Result, Unavailable
from harness.acceptance.parts.training import gpt2_124m, small, train

TOOLS = ("memcheck", "racecheck")
SANITIZER = "compute-sanitizer"
FOUND_ERRORS = 86  # its exit code where it found something: none that Python ends with
ALLOWED_SHARE = 0.02
ALLOWED_BYTES = 256 << 20  # kernels, libraries' own workspaces, the allocator's grain
STEPS = 5
SAID_LINES = 6


def workers(request: Request) -> list[str]:
    return [f"{name} {what}" for name in request.backends for what in ("plan", *TOOLS)]


def checks(request: Request, worker: str, found: Mapping[str, Result]) -> Iterator[Check]:
    name, what = worker.split()
    if what == "plan":
        precisions = request.backends[name]["precisions"]
        precision = "bf16" if "bf16" in precisions else precisions[0]
        model = small(request) if request.rehearsal else gpt2_124m(4)
        yield (
            f"a step in {precision}",
            partial(beside_the_plan, (*model, f"backend={name}", f"precision={precision}")),
        )
    else:
        yield "small cases of own kernels", partial(sanitized, request, name, what)


def beside_the_plan(overrides: tuple[str, ...]) -> Result:
    """The memory that a step took of the device, and what the plan had said."""
    trained = train(overrides, STEPS)
    planned = sum(trained.planned.values())
    if trained.taken_bytes is None:
        raise Unavailable("the backend does not say what is free of its device")
    most = int(planned * (1 + ALLOWED_SHARE)) + ALLOWED_BYTES
    ok = trained.taken_bytes <= most
    return {
        "ok": ok,
        "reason": "" if ok else f"{trained.taken_bytes:,} bytes taken, {planned:,} planned",
        "taken_bytes": trained.taken_bytes,
        "planned_bytes": planned,
        "planned": trained.planned,
    }


def sanitized(request: Request, backend: str, tool: str) -> Result:
    """Run few_cases.py under one of compute-sanitizer's tools."""
    if request.rehearsal:
        raise Unavailable("kernels on the CPU are not what compute-sanitizer looks at")
    program = shutil.which(SANITIZER)
    if program is None:
        raise Unavailable(f"{SANITIZER} is not on PATH")
    command = [
        program, "--tool", tool, "--error-exitcode", str(FOUND_ERRORS), "--kill", "yes",
        sys.executable, "-m", "harness.acceptance.few_cases", backend,
    ]  # fmt: skip
    done = subprocess.run(
        command, capture_output=True, text=True, errors="replace", env=dict(os.environ), check=False
    )
    said = (done.stdout + done.stderr).strip().splitlines()
    told = [line for line in said if "ERROR SUMMARY" in line or "RACECHECK SUMMARY" in line]
    # Without a summary it checked nothing, whatever the exit code says.
    ok = done.returncode == 0 and bool(told)
    return {
        "ok": ok,
        "reason": "" if ok else f"exit code {done.returncode}: " + " / ".join(said[-SAID_LINES:]),
        "summary": told[-1].strip("= ") if told else "",
        "cases": said.count("case"),
        "command": " ".join(command[1:]),
    }


def lines(found: Mapping[str, Mapping[str, Result]]) -> list[str]:
    text = []
    for worker, results in found.items():
        for r in results.values():
            if "taken_bytes" in r:
                parts = ", ".join(f"{what} {n / 2**20:,.0f}" for what, n in r["planned"].items())
                text.append(
                    f"* {worker}: {r['taken_bytes'] / 2**20:,.0f} MiB taken,"
                    f" {r['planned_bytes'] / 2**20:,.0f} MiB planned ({parts})"
                )
            else:
                text.append(f"* {worker}: {r.get('summary') or r.get('reason', '')}")
    return text


PART = Part(
    "memory",
    "Does a step take the memory that the plan says?",
    0.13,
    workers,
    checks,
    lines,
    at_once=len(TOOLS),
    alone=lambda worker: worker.endswith("plan"),  # what is free is counted for the whole device
)
