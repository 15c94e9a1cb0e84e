"""One contestant of `harness bench train` in a process of its own: it works only when it is told to.

    python worker.py        requests on standard input, replies on standard output, one JSON line each

    {"do": "build", "module": NAME or FILE, "spec": {...}}   {"what": ..., "bf16": ..., "before": bytes}
                                                             or {"unavailable": why it cannot take part}
    {"do": "run", "steps": 3}                                {"seconds": [...], "losses": [...]}
    {"do": "peak"}                                           {"bytes": the most this process ever held,
                                                              "device_bytes": and of a device's memory}
    {"do": "waterfall", "steps": 10}                         what the module's contestant says
    the end of the input                                     the process ends

The module has `prepare(spec)`, which imports and plans and returns "" or why there can be no contestant,
and `build(spec)`, which takes the memory and returns an object with `what`, `bf16` and `step()`. It may
have `run(steps)`, which returns the seconds and the losses of so many, and `device_bytes()`.
Between two requests the process waits for a line, and takes no processor time.
Only the standard library is imported here: a peer's Python need not have what the harness needs.
"""

import importlib
import importlib.util
import json
import os
import sys
import time
import traceback
from pathlib import Path
from types import ModuleType
from typing import Any, TextIO


def main() -> int:
    replies = _replies()
    contestant: Any = None
    for line in sys.stdin:
        request = json.loads(line)
        try:
            if request["do"] == "build":
                contestant, reply = _build(request)
            elif request["do"] == "run":
                reply = _run(contestant, request["steps"])
            elif request["do"] == "peak":
                reply = {"bytes": peak_bytes(), "device_bytes": _device_bytes(contestant)}
            else:
                reply = contestant.waterfall(request["steps"])
        except Exception as error:
            traceback.print_exc()
            reply = {"error": _described(error)}
        print(json.dumps(reply), file=replies, flush=True)
    return 0


def _replies() -> TextIO:
    """Where replies go; what libraries print on standard output goes to standard error instead."""
    replies = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    return replies


def _build(request: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
    module, spec = _module(request["module"]), request["spec"]
    reason = module.prepare(spec)
    if reason:
        return None, {"unavailable": reason}
    before = held_bytes()
    contestant = module.build(spec)
    return contestant, {"what": contestant.what, "bf16": contestant.bf16, "before": before}


def _module(name: str) -> ModuleType:
    """A module by its name, or from a file that need not belong to an installed package."""
    if not name.endswith(".py"):
        return importlib.import_module(name)
    spec = importlib.util.spec_from_file_location(Path(name).stem, name)
    assert spec is not None and spec.loader is not None, name
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _run(contestant: Any, steps: int) -> dict[str, Any]:
    if hasattr(contestant, "run"):
        seconds, losses = contestant.run(steps)
        return {"seconds": seconds, "losses": losses}
    seconds, losses = [], []
    for _ in range(steps):
        start = time.perf_counter()
        losses.append(contestant.step())
        seconds.append(time.perf_counter() - start)
    return {"seconds": seconds, "losses": losses}


def _device_bytes(contestant: Any) -> int | None:
    found: int | None = contestant.device_bytes() if hasattr(contestant, "device_bytes") else None
    return found


def _described(error: Exception) -> dict[str, Any]:
    """An error as JSON; one of the harness's own keeps its class, name and facts."""
    if hasattr(error, "slug"):
        return {
            "class": type(error).__name__,
            "headline": error.headline,  # type: ignore[attr-defined]
            "slug": error.slug,
            "facts": error.facts,  # type: ignore[attr-defined]
        }
    return {"failed": f"{type(error).__name__}: {error}"}


def held_bytes(pid: str | int = "self") -> int | None:
    """The memory that a process holds now; None where the system does not tell."""
    return _status(pid, "VmRSS")


def peak_bytes(pid: str | int = "self") -> int | None:
    """The most memory that a process ever held; None where the system does not tell."""
    return _status(pid, "VmHWM")


def _status(pid: str | int, key: str) -> int | None:
    # Not getrusage: its maximum begins with what the parent held when it started this process.
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return None
    found = [line.split()[1] for line in lines if line.startswith(f"{key}:")]
    return 1024 * int(found[0]) if found else None


if __name__ == "__main__":
    # Run as a file: its folder has names such as `timing` that must not hide other modules.
    sys.path[:] = [place for place in sys.path if Path(place).resolve() != Path(__file__).parent]
    raise SystemExit(main())
