"""Fill the tables of README.md and docs/results.md from the records of experiments/.

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

from experiments.speed_ladder.rungs import RUNGS

ROOT = Path(__file__).resolve().parents[1]
EXPERIMENTS = ROOT / "experiments"


def record(name: str) -> Any:
    """A JSON record under experiments/."""
    return json.loads((EXPERIMENTS / name).read_text())


def at_a_glance() -> str:
    """README.md's table: one figure of each larger one in docs/results.md."""
    run, wrong = record("first_run/record.json"), record("conformance_strength/record_wrong.json")
    step = record("speed_ladder/record_gpt2_124m.json")["contestants"]
    times = {
        name: step[name]["times"]["numba"]["value"] for name in ("torch-compile", "torch", "llm.c")
    }
    losses = run["validation"]
    model = losses["this model"]
    suite = wrong["caught"]["this suite, quick"]
    return "\n".join(
        [
            f"| on {_cpu(run)} | |",
            "|---|---|",
            f"| the first run, {run['total_s']:.0f} s | a loss of {model:.3f} nats per byte; "
            f"counting trigrams reaches {losses['trigram']:.3f} |",
            "| a training step of GPT-2 124M, B=4, T=64, `backend=numba` | "
            f"{_ms(step['numba']['median_s'])} ms: {times['torch-compile']:.2f} times as fast as "
            f"compiled PyTorch, {times['torch']:.2f} as eager, {times['llm.c']:.2f} as llm.c |",
            f"| kernels that are wrong on purpose | {suite} of {wrong['count']} refused by the "
            "conformance suite |",
        ]
    )


def first_run() -> str:
    found = record("first_run/record.json")
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


def speed_ladder() -> str:
    rungs = {
        name: (rung, record(f"speed_ladder/record_{name}.json"))
        for name, rung in RUNGS.items()
        if (EXPERIMENTS / "speed_ladder" / f"record_{name}.json").exists()
    }
    if not rungs:
        return "Not recorded yet: `python -m experiments.speed_ladder`."
    _, first = next(iter(rungs.values()))
    machine = first["machine"]
    lines = [
        f"A whole training step (forward, backward, AdamW) on {machine['cpu']}, {machine['cores']} "
        "cores, nothing clipped, on the same weights and batches; a process for each, in turns; "
        "medians. Peak: of the whole process. Above 1, ours is faster. "
        "[How to read it](bench-train.md), and "
        "[each rung's waterfall](../experiments/speed_ladder/README.md).",
        "",
        "| step | | median (p10 to p90) | tokens/s | first step | peak | times ours (p10 to p90) |",
        "|---|---|---|---|---|---|---|",
    ]
    for rung, found in rungs.values():
        title = rung.title
        for name, one in found["contestants"].items():
            lines.append("| " + " | ".join([title, *_contestant(name, one, found["ours"])]) + " |")
            title = ""
        lines += [
            f"| {title} | {name} | not run: {why} | | | | |"
            for name, why in found["not_run"].items()
        ]
    return "\n".join(lines)


def _contestant(name: str, one: Any, ours: list[str]) -> list[str]:
    """The cells of one contestant, after its rung's."""
    times = [
        f"**{ratio['value']:.2f}** ({ratio['low']:.2f} to {ratio['high']:.2f})"
        + (f" `{base}`" if len(ours) > 1 else "")
        for base, ratio in one["times"].items()
        if base != name
    ]
    peak = one["peak_bytes"]
    return [
        f"`{name}`",
        f"{_ms(one['median_s'])} ({_ms(one['p10_s'])} to {_ms(one['p90_s'])}) ms",
        f"{one['tokens_per_s']:,.0f}",
        f"{one['first_step_s']:.1f} s",
        "" if peak is None else f"{peak / 2**20:,.0f} MiB",
        "<br>".join(times),
    ]


def _ms(seconds: float) -> str:
    return f"{1e3 * seconds:,.0f}" if seconds >= 0.1 else f"{1e3 * seconds:.1f}"


def conformance() -> str:
    wrong, honest = (
        record("conformance_strength/record_wrong.json"),
        record("conformance_strength/record_honest.json"),
    )
    mutants = record("conformance_strength/record_mutants.json")
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
            "[survivors.md](../experiments/conformance_strength/survivors.md).",
        ]
    )


def generation() -> str:
    found = record("generation_speed/record.json")
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
            f"{found['turns']} turns. [Where a step goes](../experiments/generation_speed/README.md).",
            "",
            "| | tokens/s | the cache is faster by |",
            "|---|---|---|",
            *rows,
        ]
    )


def model_files() -> str:
    found, damaged = record("model_files/record.json"), record("bad_files/record.json")
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
            f"2 seconds or 2 GiB ([experiments/bad_files](../experiments/bad_files/README.md)).",
        ]
    )


def matmul() -> str:
    rows = [
        row
        for row in record("op_benchmarks/record.json")["rows"]
        if row["half"] == "matmul_forward" and set(row["shape"].split()) == {"N64", "I256", "O512"}
    ]
    medians = {row["backend"]: row["timing"]["median_s"] for row in rows}
    ratio = medians["python"] / medians["numpy"]
    return "\n".join(
        [
            "What a library is worth: one matmul, (64, 256) x (512, 256) transposed, one thread. "
            "All ops: [experiments/op_benchmarks](../experiments/op_benchmarks/record.md).",
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


TABLES: dict[str, dict[str, Callable[[], str]]] = {
    "README.md": {"at_a_glance": at_a_glance},
    "docs/results.md": {
        "first_run": first_run,
        "speed_ladder": speed_ladder,
        "conformance": conformance,
        "generation": generation,
        "model_files": model_files,
        "matmul": matmul,
    },
}


def filled(page: str, text: str) -> str:
    """The page's text with every table as the records say."""
    for name, table in TABLES[page].items():
        block = re.compile(rf"(<!-- table: {name} -->\n).*?(<!-- end -->)", re.DOTALL)
        made = table()
        text, count = block.subn(rf"\g<1>{_escaped(made)}\n\g<2>", text)
        if count != 1:
            raise SystemExit(f"{page} has {count} places for the table {name}")
    return text


def _escaped(text: str) -> str:
    """Text as a replacement that stands for itself."""
    return text.replace("\\", r"\\")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true")
    arguments = parser.parse_args()
    stale = False
    for page in TABLES:
        before = (ROOT / page).read_text(encoding="utf-8")
        after = filled(page, before)
        stale |= before != after
        if not arguments.check:
            (ROOT / page).write_text(after, encoding="utf-8")
    return int(stale and arguments.check)


if __name__ == "__main__":
    sys.exit(main())
