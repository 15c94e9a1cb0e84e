"""Does the suite notice a CUDA kernel that is broken in one place?

    python -m experiments.cuda_mutants [--sample N] [--seed S] [--source NAME] [--minutes M] [--write]
    python -m experiments.cuda_mutants --again [--write]

Needs g++ and no GPU. --write: record.json, and the table in README.md. --again judges what survived in
record.json, and is not explained, once more: by the suite, then by the kernels' own tests.
"""

import argparse
import json
import os
import random
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from itertools import zip_longest
from pathlib import Path
from typing import Any

os.environ.setdefault("HARNESS_CUDA_ON_CPU", "1")
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # children are forked

from experiments.cuda_mutants import judging
from experiments.cuda_mutants.judging import (
    SERVES,
    TEXTS,
    Fate,
    accept_tests,
    accept_unchanged,
    fate_of,
)
from experiments.cuda_mutants.mutations import Mutation, mutations_of
from harness.conformance.report import machine

HERE = Path(__file__).parent
MIN_PER_FILE = 3
"""Of a file, however short."""
MAX_OF_ATTENTION = 2
"""Of a file that attention judges: half a minute each."""
NOTICED = ("conformance", "tests", "crash", "time")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sample", type=int, default=200, help="about so many mutants")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--source", help="of files of this name alone, such as layernorm")
    parser.add_argument("--minutes", type=float, default=60.0, help="begin no mutant after these")
    parser.add_argument("--again", action="store_true", help="what survived in record.json")
    parser.add_argument("--write", action="store_true")
    arguments = parser.parse_args()
    texts = {file: TEXTS[file] for file in sorted(SERVES, key=needs_attention)}
    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="cuda-mutants-") as folder:
        judging.compile_into(Path(folder))
        if arguments.again:
            result = again(json.loads((HERE / "record.json").read_text(encoding="utf-8")), texts)
        else:
            result = {
                "command": "python -m experiments.cuda_mutants",
                "seed": arguments.seed,
                "sample": arguments.sample,
                "sites": {file: len(mutations_of(file, text)) for file, text in texts.items()},
                "mutants": [],
            }
            chosen = draw(texts, arguments.sample, arguments.seed, arguments.source)
            result["drawn"] = sum(map(len, chosen.values()))
            for fate in fates_of(chosen, texts, arguments.minutes):
                result["mutants"].append(as_record(fate, texts))
                result["seconds"] = round(time.monotonic() - started)
                if arguments.write:
                    write(result)
    print("\n".join(table(result, explained())))
    if arguments.write:
        write(result)


def write(result: dict[str, Any]) -> None:
    """Keep the record, and what README.md shows of it."""
    record = {**result, "machine": machine()}
    text = json.dumps(record, indent=1, ensure_ascii=False) + "\n"
    (HERE / "record.json").write_text(text, encoding="utf-8")
    renew_readme(result)


def needs_attention(file: str) -> bool:
    """Those come last: each takes long."""
    return any("attention" in hook for hook in SERVES[file])


def fates_of(
    chosen: dict[str, list[Mutation]], texts: dict[str, str], minutes: float
) -> Iterator[Fate]:
    """Judge by the suite, a mutant of each file in turn, until the minutes are over."""
    print(f"{sum(map(len, chosen.values()))} mutants of {len(chosen)} files", flush=True)
    end = time.monotonic() + 60 * minutes
    usual_s: dict[str, float] = {}
    for turn in zip_longest(*chosen.values()):
        for mutation in filter(None, turn):
            if time.monotonic() > end:
                return
            file = mutation.file
            if file not in usual_s:
                usual_s[file] = accept_unchanged(file)
            fate = fate_of(mutation, usual_s[file], judges=("conformance",))
            print(told(fate, texts), flush=True)
            yield fate


def again(result: dict[str, Any], texts: dict[str, str]) -> dict[str, Any]:
    """The record, with those survivors marked that the suite or a test notices now."""
    tested: set[str] = set()
    for mutant in result["mutants"]:
        file = mutant["place"].partition(":")[0]
        if mutant["how"] != "survived" or key_of(mutant) in explained():
            continue
        lines = mutant["before"], mutant["after"]
        place = int(mutant["place"].partition(":")[2])
        found = (m for m in mutations_of(file, texts[file]) if m.line == place)
        same = [m for m in found if m.shown(texts[file]) == lines]
        if not same:
            print(f"{mutant['place']}: the kernel has changed since")
            continue
        fate = fate_of(same[0], accept_unchanged(file))
        if fate.how == "tests" and file not in tested:
            accept_tests(file)
            tested.add(file)
        print(told(fate, texts), flush=True)
        mutant.update(how=fate.how, by=fate.by)
    return result


def draw(
    texts: dict[str, str], sample: int, seed: int, source: str | None = None
) -> dict[str, list[Mutation]]:
    """About `sample` mutants, of each file as its share of all that could be made; in their order."""
    sites = {
        file: mutations_of(file, text)
        for file, text in texts.items()
        if source is None or file.partition(".")[0] == source
    }
    rng, everything = random.Random(seed), sum(map(len, sites.values()))
    chosen = {}
    for file, mutations in sites.items():
        count = max(MIN_PER_FILE, round(sample * len(mutations) / everything))
        if source is None and needs_attention(file):
            count = min(count, MAX_OF_ATTENTION)
        drawn = rng.sample(range(len(mutations)), min(count, len(mutations)))
        chosen[file] = [mutations[i] for i in sorted(drawn)]
    return chosen


def as_record(fate: Fate, texts: dict[str, str]) -> dict[str, Any]:
    mutation = fate.mutation
    before, after = mutation.shown(texts[mutation.file])
    return {
        "place": f"{mutation.file}:{mutation.line}",
        "kind": mutation.kind,
        "before": before,
        "after": after,
        "how": fate.how,
        "by": fate.by,
        "seconds": fate.seconds,
    }


def told(fate: Fate, texts: dict[str, str]) -> str:
    """One line; of a survivor, what was changed."""
    found = as_record(fate, texts)
    line = (
        f"{found['how']:12} {found['place']} {found['kind']}  ({found['seconds']} s)  {found['by']}"
    )
    if fate.how == "survived":
        line += f"\n    - {found['before']}\n    + {found['after']}"
    return line


def explained() -> dict[str, str]:
    """Why a survivor is none of the suite's concern, by `place: after`; written by hand."""
    path = HERE / "explained.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}


def key_of(mutant: dict[str, Any]) -> str:
    return f"{mutant['place']}: {mutant['after']}"


def table(result: dict[str, Any], reasons: dict[str, str]) -> list[str]:
    lines = [
        "| source | mutants | noticed | does not compile | same machine code | survived | explained |",
        "|---|---|---|---|---|---|---|",
    ]
    counts: dict[str, Counter[str]] = {}
    for mutant in result["mutants"]:
        for name in (mutant["place"].partition(":")[0], "all"):
            count = counts.setdefault(name, Counter())
            count["mutants"] += 1
            count[mutant["how"]] += 1
            count["explained"] += mutant["how"] == "survived" and key_of(mutant) in reasons
    counts["all"] = counts.pop("all", Counter())
    for name, count in counts.items():
        noticed = sum(count[how] for how in NOTICED)
        cells = [name, count["mutants"], noticed, count["compiler"], count["same code"]]
        cells += [count["survived"], count["explained"]]
        lines.append("| " + " | ".join(map(str, cells)) + " |")
    everything = counts["all"]
    hows = ", ".join(f"{everything[how]} by {how}" for how in NOTICED)
    return [*lines, "", f"Noticed: {hows}."]


def survivors(result: dict[str, Any], reasons: dict[str, str]) -> list[str]:
    lines = []
    for mutant in result["mutants"]:
        if mutant["how"] == "survived":
            reason = reasons.get(key_of(mutant), "**not explained**")
            change = f"`{mutant['before']}` became `{mutant['after']}`"
            lines.append(f"- `{mutant['place']}` {change}: {reason}")
    return lines or ["None."]


def renew_readme(result: dict[str, Any]) -> None:
    """Write what the results say between README.md's marks."""
    path, reasons = HERE / "README.md", explained()
    text = path.read_text(encoding="utf-8")
    for name, lines in (("table", table), ("survivors", survivors)):
        begin, end = f"<!-- {name} -->\n", f"<!-- end of {name} -->"
        before, _, rest = text.partition(begin)
        text = before + begin + "\n".join(lines(result, reasons)) + "\n" + end
        text += rest.partition(end)[2]
    path.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
