"""Time whole training steps beside PyTorch's, at two sizes and with both BLAS kernel settings.

    python -m experiments.train_speed [--turns N]

In turns: `harness bench train`, both sides within one process. Alone: each side in processes of its
own, one after the other. OpenBLAS reads OPENBLAS_CORETYPE once, so each setting is a process too.
"""

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path
from statistics import median
from typing import Any

from harness.run_folder import versions, write_json_atomically

HERE = Path(__file__).parent
SIZES = {
    "gpt2_124m": ["model=gpt2_124m", "batch_size=4", "sequence_length=64"],
    "tiny": ["model=tiny", "batch_size=12", "sequence_length=64"],
}
STEPS_ALONE = {"gpt2_124m": 4, "tiny": 60}
ROUNDS_ALONE = 2
NO_CLIPPING = "clip_norm=null"
KERNELS = {"native": None, "haswell": "Haswell"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--turns", type=int, default=12)
    arguments = parser.parse_args()
    alone: dict[str, Any] = {}
    for size, overrides in SIZES.items():
        for name, kernel in KERNELS.items():
            environment = {k: v for k, v in os.environ.items() if k != "OPENBLAS_CORETYPE"}
            if kernel:
                environment["OPENBLAS_CORETYPE"] = kernel
            settings = [*overrides, NO_CLIPPING]
            alone[f"{size}_{name}"] = time_alone(settings, STEPS_ALONE[size], environment)
            command = [sys.executable, "-m", "harness.cli", "bench", "train", *settings]
            command += ["--turns", str(arguments.turns), "--report", str(HERE / f"{size}_{name}")]
            subprocess.run(command, env=environment, check=True)
    alone["versions"] = versions()
    write_json_atomically(HERE / "alone.json", alone)


def time_alone(settings: list[str], steps: int, environment: dict[str, str]) -> dict[str, Any]:
    """Median seconds of a step of each side; the sides take turns, a process each time."""
    times_s: dict[str, list[float]] = {"numpy": [], "torch": []}
    for _ in range(ROUNDS_ALONE):
        for side, found in times_s.items():
            command = [sys.executable, "-m", "experiments.train_speed.alone", side, str(steps)]
            done = subprocess.run(
                [*command, *settings], env=environment, check=True, capture_output=True, text=True
            )
            found += json.loads(done.stdout)
    return {side: median(found) for side, found in times_s.items()}


if __name__ == "__main__":
    main()
