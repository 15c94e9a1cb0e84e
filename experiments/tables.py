"""Fill README.md's tables from the records of experiments/.

    python -m experiments.tables [--check]

--check changes nothing, and exits 1 if a table is not what the records say.
"""

import argparse
import json
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
EXPERIMENTS = ROOT / "experiments"
README = ROOT / "README.md"


def record(name: str) -> Any:
    """A JSON record under experiments/."""
    return json.loads((EXPERIMENTS / name).read_text())


def first_run() -> str:
    found = record("first_run/result.json")
    losses = found["validation"]
    rows = [f"| {name} | {loss:.3f} |" for name, loss in losses.items()]
    return "\n".join(
        [
            f"`python -m harness.train` on {_cpu(found)}: first step after {found['first_step_s']:.1f} s, "
            f"done after {found['total_s']:.0f} s ({found['steps']:,} steps, median "
            f"{found['median_step_ms']:.1f} ms). Validation loss beside counting, on the same split:",
            "",
            "| | nats per byte |",
            "|---|---|",
            *rows,
        ]
    )


def train_speed() -> str:
    sizes = {
        "gpt2_124m": "GPT-2 124M, B=4, T=64",
        "tiny": "4 layers, C=128, B=12, T=64",
    }
    kernels = {"native": "not set", "haswell": "Haswell"}
    lines = [
        "A whole training step (forward, backward, AdamW), float32, two threads on either side, no "
        "clipping, in turns within one process; medians:",
        "",
        "| step | `OPENBLAS_CORETYPE` | `backend=numpy` | PyTorch eager | ratio (p10 to p90) | outside ops |",
        "|---|---|---|---|---|---|",
    ]
    for size, title in sizes.items():
        for kernel, said in kernels.items():
            found = record(f"train_speed/{size}_{kernel}.json")
            ours, torch = found["contestants"]["numpy"], found["contestants"]["torch"]
            ratio = torch["times_first"]
            outside = found["waterfalls"][0]["outside_share"]
            lines.append(
                f"| {title} | {said} | {1e3 * ours['median_s']:.1f} ms | {1e3 * torch['median_s']:.1f} ms "
                f"| {ratio['value']:.2f} ({ratio['low']:.2f} to {ratio['high']:.2f}) | {100 * outside:.1f} % |"
            )
    return "\n".join(lines)


def _cpu(found: Any) -> str:
    versions = found["versions"]
    return f"{versions['cpu']}, {versions['cpu_count']} cores"


TABLES: dict[str, Callable[[], str]] = {
    "first_run": first_run,
    "train_speed": train_speed,
}


def filled(text: str) -> str:
    """The README with every table as the records say."""
    for name, table in TABLES.items():
        block = re.compile(rf"(<!-- table: {name} -->\n).*?(<!-- end -->)", re.DOTALL)
        text, count = block.subn(lambda m, made=table(): f"{m[1]}{made}\n{m[2]}", text)
        if count != 1:
            raise SystemExit(f"README.md has {count} places for the table {name}")
    return text


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true")
    arguments = parser.parse_args()
    before = README.read_text()
    after = filled(before)
    if arguments.check:
        return int(before != after)
    README.write_text(after)
    return 0


if __name__ == "__main__":
    sys.exit(main())
