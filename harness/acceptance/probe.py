"""What the backends say of themselves on this machine, as JSON.

    python -m harness.acceptance.probe cupy numba_cuda

{name: {"describe", "options", "precisions", "captures", "device"}}, or {name: {"unavailable": reason}}.
It is a process of its own, because a device that was opened holds memory until the process ends.
"""

import json
import sys
from typing import Any

from harness.errors import HarnessError
from harness.plugins.loading import all_ops, configure, installed, load


def probe(name: str) -> dict[str, Any]:
    if name not in installed():
        return {"unavailable": "no such backend is installed"}
    try:
        backend = load(name, all_ops())
        if backend.device == "host":
            return {"unavailable": "it computes on the host"}
        configure(backend, {})
        backend.open_device().empty(256)
        describe = backend.functions.get("describe_libraries")
        return {
            "describe": describe() if describe else backend.source,
            "options": {key: list(values) for key, values in backend.options.items()},
            "precisions": list(backend.computes),
            "captures": backend.capturable and "capture" in backend,
            "device": backend.device,
        }
    except HarnessError as error:
        facts = "; ".join(f"{label} {text}" for label, text in error.facts.items())
        return {"unavailable": f"[{error.slug}] {error.headline} ({facts})"}
    except Exception as error:
        return {"unavailable": f"{type(error).__name__}: {error}"}


def main(argv: list[str]) -> int:
    print("\n" + json.dumps({name: probe(name) for name in argv}))
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
