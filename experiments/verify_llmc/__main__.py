"""Verify GPT-2 124M's size with random weights, and record times, memory and errors.

    python -m experiments.verify_llmc [--backend NAME] [--steps N] [--folder FOLDER]

Writing and verifying are a process each, so that the peak of the memory is its own.
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

HERE = Path(__file__).parent
SIZE = ["model=gpt2_124m", "model.vocab_size=50257", "B=4", "T=64", "seed=0"]


def timed(arguments: list[str]) -> dict[str, Any]:
    """Run `harness verify ...`: seconds in all and until each line, and the peak of its memory."""
    started = time.perf_counter()
    command = [sys.executable, "-m", "harness.cli", "verify", *arguments]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    lines = []
    for line in process.stdout:
        print(line, end="", flush=True)
        lines.append((time.perf_counter() - started, line))
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"{' '.join(command)} ended with {process.returncode}")
    return {
        "total_s": round(time.perf_counter() - started, 1),
        "peak_bytes": usage.ru_maxrss * 1024,
        "until_s": {
            line.split("  ")[0].strip(): round(at, 1) for at, line in lines if "  " in line
        },
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--backend", default="numpy")
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--folder", type=Path, help="for 1.0 GB of files; they are deleted")
    arguments = parser.parse_args()
    with TemporaryDirectory(dir=arguments.folder) as folder:
        files = [f"{folder}/model.bin", f"{folder}/debug_state.bin"]
        written = timed(["write", folder, *SIZE])
        sizes = {Path(file).name: os.path.getsize(file) for file in files}
        report = Path(folder) / "report.json"
        keys = [f"backend={arguments.backend}", f"steps={arguments.steps}", f"report={report}"]
        verified = timed([*files, *keys])
        found = json.loads(report.read_text())
    result = {
        "command": f"python -m experiments.verify_llmc --backend {arguments.backend} "
        f"--steps {arguments.steps}",
        "OPENBLAS_CORETYPE": os.environ.get("OPENBLAS_CORETYPE"),
        "bytes": sizes,
        "write": written,
        "verify": verified,
        "rows": found["rows"],
        "versions": versions(),
    }
    write_json_atomically(HERE / f"record_{arguments.backend}.json", result)


if __name__ == "__main__":
    main()
