"""Train the micro GPT-2 with every op a kernel of numba_cuda, and with NumPy, and record both losses.

python -m experiments.numba_cuda_micro [--name NAME]

Where there is no GPU: NUMBA_ENABLE_CUDASIM=1, and the kernels run in Numba's simulator.
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
BACKENDS = ("numba_cuda", "numpy")


def run(backend: str) -> dict[str, Any]:
    """Losses and gradient norms of the steps, and seconds of all of them."""
    command = [sys.executable, "-m", "harness.train", "experiment=numba_cuda_micro"]
    with TemporaryDirectory() as folder:
        arguments = {"cwd": folder, "check": True, "stdout": subprocess.DEVNULL}
        subprocess.run([*command, f"backend={backend}"], **arguments)
        (found,) = (Path(folder) / "runs").iterdir()
        steps = [r for r in read(found / "metrics.jsonl") if r["kind"] == "step"]
    return {
        "losses": [r["loss"] for r in steps],
        "gradient_norms": [r["grad_norm"] for r in steps],
        "seconds": sum(r["step_ms"] for r in steps) / 1e3,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--name", default="record", help="of the record, without .json")
    name = parser.parse_args().name
    runs = {backend: run(backend) for backend in BACKENDS}
    pairs = zip(*(runs[backend]["losses"] for backend in BACKENDS), strict=True)
    record = {
        "command": "python -m experiments.numba_cuda_micro",
        "losses_apart_at_most": max(abs(a - b) for a, b in pairs),
        "runs": runs,
        "versions": versions(),
    }
    write_json_atomically(HERE / f"{name}.json", record)
    print(json.dumps(record, indent=2))


if __name__ == "__main__":
    main()
