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


def generation() -> str:
    found = record("generation_speed/result.json")
    speed, faster = found["tokens_per_s"], found["cached_is_faster_by"]
    rows = [f"| `numpy`, from the cache | {speed['cached']:.1f} | |"]
    for side, title in {
        "recomputed": "`numpy`, the whole text again for each token",
        "transformers": "transformers with its cache, 2 threads",
    }.items():
        rows.append(f"| {title} | {speed[side]:.1f} | **{faster[side]:.2f}** |")
    return "\n".join(
        [
            f"Generating with GPT-2 124M in float32, one row, a prompt of {found['prompt']} and "
            f"{found['new_tokens']} new tokens; all three give the same tokens. Medians of "
            f"{found['turns']} turns. [Where a step goes](experiments/generation_speed/README.md).",
            "",
            "| | tokens/s | the cache is faster by |",
            "|---|---|---|",
            *rows,
        ]
    )


def model_files() -> str:
    found, damaged = record("model_files/result.json"), record("bad_files/result.json")
    rows = [
        f"| {title} | {row['peak_bytes'] / 2**20:,.0f} MiB | {row['of_the_file']:.2f} "
        f"| {row['seconds']:.1f} s |"
        for title, row in found["records"].items()
    ]
    return "\n".join(
        [
            "Peak memory of whole processes (interpreter included) with a model of GPT-2 124M's size, "
            f"{found['file_bytes'] / 2**20:,.0f} MiB in float32:",
            "",
            "| | peak | of the float32 file | time |",
            "|---|---|---|---|",
            *rows,
            "",
            f"Damaged files: {damaged['mutants']:,} mutants of {len(damaged['formats'])} formats, each "
            f"refused with one typed error or read; {damaged['faults']} broke that, "
            f"2 seconds or 2 GiB ([experiments/bad_files](experiments/bad_files/README.md)).",
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
    "generation": generation,
    "model_files": model_files,
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
