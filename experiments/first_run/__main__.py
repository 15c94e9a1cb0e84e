"""Run `python -m harness.train` as a newcomer does, and record what it took.

python -m experiments.first_run [--name NAME]
"""

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from harness.machine.provenance import versions
from harness.run.folder import write_json_atomically
from harness.run.metrics import read

HERE = Path(__file__).parent


def measure(folder: Path) -> dict[str, Any]:
    """One default run in a new folder: times in seconds, losses in nats per byte."""
    started = time.perf_counter()
    first_step_s = None
    process = subprocess.Popen(
        [sys.executable, "-m", "harness.train"], cwd=folder, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    for line in process.stdout:
        if first_step_s is None and line.startswith("step 1/"):
            first_step_s = time.perf_counter() - started
    if process.wait():
        raise SystemExit(f"the run failed with exit code {process.returncode}")
    total_s = time.perf_counter() - started
    (run,) = (folder / "runs").iterdir()
    records = read(run / "metrics.jsonl")
    steps = [r for r in records if r["kind"] == "step"]
    (baselines,) = (r for r in records if r["kind"] == "baselines")
    (sample,) = (r for r in records[-4:] if r["kind"] == "sample")
    step_ms = sorted(r["step_ms"] for r in steps)
    return {
        "first_step_s": first_step_s,
        "total_s": total_s,
        "steps": len(steps),
        "median_step_ms": step_ms[len(step_ms) // 2],
        "validation": {n: v for n, v in baselines.items() if n not in ("kind", "step")},
        "sample": sample["text"],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--name", default="record", help="of the record, without .json")
    arguments = parser.parse_args()
    with TemporaryDirectory() as folder:
        result = measure(Path(folder))
    result["OPENBLAS_CORETYPE"] = os.environ.get("OPENBLAS_CORETYPE")
    result["command"] = "python -m experiments.first_run"
    result["versions"] = versions()
    write_json_atomically(HERE / f"{arguments.name}.json", result)
    print(json.dumps({k: v for k, v in result.items() if k != "versions"}, indent=2))


if __name__ == "__main__":
    main()
