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
            f"`python -m harness.train` on {_cpu(found)}: first step after "
            f"{found['first_step_s']:.1f} s, done after {found['total_s']:.0f} s "
            f"({found['steps']:,} steps, median {found['median_step_ms']:.1f} ms). "
            "Validation loss beside counting, on the same split:",
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
    alone = record("train_speed/alone.json")
    lines = [
        "A whole training step (forward, backward, AdamW), float32, two threads on either side, no "
        "clipping; medians. Above 1, NumPy is faster than eager PyTorch. In turns: both in one process, "
        "interleaved. Alone: each in processes of its own.",
        "",
        "| step | `OPENBLAS_CORETYPE` | in turns: numpy | PyTorch | ratio (p10 to p90) "
        "| alone: numpy | PyTorch | ratio | outside ops |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for size, title in sizes.items():
        for kernel, said in kernels.items():
            found = record(f"train_speed/{size}_{kernel}.json")
            ours, torch = found["contestants"]["numpy"], found["contestants"]["torch"]
            ratio = torch["times_first"]
            apart = alone[f"{size}_{kernel}"]
            outside = found["waterfalls"][0]["outside_share"]
            cells = [
                title,
                said,
                f"{1e3 * ours['median_s']:.1f} ms",
                f"{1e3 * torch['median_s']:.1f} ms",
                f"**{ratio['value']:.2f}** ({ratio['low']:.2f} to {ratio['high']:.2f})",
                f"{1e3 * apart['numpy']:.1f} ms",
                f"{1e3 * apart['torch']:.1f} ms",
                f"**{apart['torch'] / apart['numpy']:.2f}**",
                f"{100 * outside:.1f} %",
            ]
            lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def conformance() -> str:
    wrong, honest = (
        record("conformance_strength/wrong.json"),
        record("conformance_strength/honest.json"),
    )
    mutants = record("conformance_strength/mutants.json")
    count = wrong["count"]
    rows = [f"| {policy} | {caught} of {count} |" for policy, caught in wrong["caught"].items()]
    killed = mutants["mutants"] - mutants["survived"]
    share = 100 * killed / mutants["mutants"]
    return "\n".join(
        [
            "How strict the conformance suite is: deliberately wrong kernels that each policy refuses.",
            "",
            "| policy | wrong kernels refused |",
            "|---|---|",
            *rows,
            "",
            f"Honest kernels: {honest['variants_count']} variants, {honest['cases']:,} drawn cases, "
            f"{honest['refused']} refused. Automatic mutants of the NumPy backend: "
            f"{killed} of {mutants['mutants']} killed ({share:.1f} %); "
            "each survivor is explained in "
            "[survivors.md](experiments/conformance_strength/survivors.md).",
        ]
    )


def matmul() -> str:
    rows = [
        row
        for row in record("op_benchmarks/ops.json")["rows"]
        if row["half"] == "matmul_forward" and set(row["shape"].split()) == {"N64", "I256", "O512"}
    ]
    medians = {row["backend"]: row["timing"]["median_s"] for row in rows}
    ratio = medians["python"] / medians["numpy"]
    return "\n".join(
        [
            "What a library is worth: one matmul, (64, 256) x (512, 256) transposed, one thread. "
            "All ops: [experiments/op_benchmarks](experiments/op_benchmarks/ops.md).",
            "",
            "| backend | median | |",
            "|---|---|---|",
            f"| `python` | {1e3 * medians['python']:.0f} ms | 1 |",
            f"| `numpy` | {1e3 * medians['numpy']:.2f} ms | {ratio:,.0f} times faster |",
        ]
    )


def _cpu(found: Any) -> str:
    versions = found["versions"]
    return f"{versions['cpu']}, {versions['cpu_count']} cores"


TABLES: dict[str, Callable[[], str]] = {
    "first_run": first_run,
    "train_speed": train_speed,
    "conformance": conformance,
    "matmul": matmul,
}


def filled(text: str) -> str:
    """The README with every table as the records say."""
    for name, table in TABLES.items():
        block = re.compile(rf"(<!-- table: {name} -->\n).*?(<!-- end -->)", re.DOTALL)
        made = table()
        text, count = block.subn(rf"\g<1>{_escaped(made)}\n\g<2>", text)
        if count != 1:
            raise SystemExit(f"README.md has {count} places for the table {name}")
    return text


def _escaped(text: str) -> str:
    """Text as a replacement that stands for itself."""
    return text.replace("\\", r"\\")


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
