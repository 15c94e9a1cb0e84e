"""Train the same model in float32 and in bf16, and record how far the curves are apart.

python -m experiments.bf16_curve [--name NAME] [setting=value ...]

Settings go to every run: backend=cupy, steps=1000.
"""

import argparse
import json
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from harness.machine.provenance import versions
from harness.run.folder import write_json_atomically
from harness.run.metrics import read

HERE = Path(__file__).parent
RUNS = {
    "fp32": ["precision=fp32"],
    "bf16, nearest": ["precision=bf16", "rounding=nearest"],
    "bf16, stochastic": ["precision=bf16", "rounding=stochastic"],
}
SMOOTHED = 20
"""Steps that a point of the smoothed training curve is the mean of."""


def curve(folder: Path, settings: list[str]) -> dict[str, Any]:
    """One run: losses of training and of validation, and the median step."""
    command = [sys.executable, "-m", "harness.train", "experiment=bf16_curve", *settings]
    subprocess.run(command, cwd=folder, check=True, stdout=subprocess.DEVNULL)
    (run,) = (folder / "runs").iterdir()
    records = read(run / "metrics.jsonl")
    steps = [r for r in records if r["kind"] == "step"]
    step_ms = sorted(r["step_ms"] for r in steps)
    return {
        "training": [r["loss"] for r in steps],
        "validation": {r["step"]: r["loss"] for r in records if r["kind"] == "validation"},
        "median_step_ms": step_ms[len(step_ms) // 2],
    }


def smoothed(losses: list[float]) -> list[float]:
    ends = range(SMOOTHED, len(losses) + 1)
    return [sum(losses[end - SMOOTHED : end]) / SMOOTHED for end in ends]


def apart(one: dict[str, Any], other: dict[str, Any]) -> dict[str, float]:
    """How far a run is from another: the largest of all points, as a share of the other's loss."""
    pairs = zip(smoothed(one["training"]), smoothed(other["training"]), strict=True)
    training = max(abs(a / b - 1) for a, b in pairs)
    differences = [one["validation"][s] / loss - 1 for s, loss in other["validation"].items()]
    return {
        "smoothed training, at most": training,
        "validation, at most": max(map(abs, differences)),
        "validation, at the end": differences[-1],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--name", default="record", help="of the record, without .json")
    parser.add_argument("settings", nargs="*", help="of every run")
    arguments = parser.parse_args()
    runs = {}
    for name, settings in RUNS.items():
        with TemporaryDirectory() as folder:
            runs[name] = curve(Path(folder), [*arguments.settings, *settings])
    distances = {n: apart(run, runs["fp32"]) for n, run in runs.items() if n != "fp32"}
    record = {
        "command": " ".join(["python -m experiments.bf16_curve", *arguments.settings]),
        "apart": distances,
        "runs": runs,
        "versions": versions(),
    }
    write_json_atomically(HERE / f"{arguments.name}.json", record)
    print(json.dumps(distances, indent=2))


if __name__ == "__main__":
    main()
