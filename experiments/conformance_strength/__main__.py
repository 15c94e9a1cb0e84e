"""How strict is the conformance suite, and how fair?

    python -m experiments.conformance_strength [wrong] [honest] [mutants] [--cases N] [--limit N]

Runs the parts that are named, or all three; writes a JSON file for each, and the tables in README.md.
"""

import argparse
import json
import time
from pathlib import Path
from typing import Any

from harness.conformance.judge import judge_function
from harness.conformance.report import machine
from harness.contract import OpTable
from harness.mutation import mutate
from harness.plugins.loading import all_ops
from tests.conformance.honest import TEMPORARIES, all_honest, drawn_cases
from tests.conformance.wrong import Wrong, all_wrong
from tests.conformance.wrong.loose import POLICIES, lets_through

HERE = Path(__file__).parent
PARTS = ("wrong", "honest", "mutants")
OURS = "this suite, quick"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("parts", nargs="*", help=f"of {', '.join(PARTS)}; all without any")
    parser.add_argument("--cases", type=int, default=1000, help="drawn for each honest variant")
    parser.add_argument("--limit", type=int, help="draw this many mutants; all of them without")
    arguments = parser.parse_args()
    if not set(arguments.parts) <= set(PARTS):
        parser.error(f"the parts are {', '.join(PARTS)}")
    ops = all_ops()
    for part in arguments.parts or PARTS:
        if part == "wrong":
            write("wrong", judge_wrong(ops))
        elif part == "honest":
            write("honest", judge_honest(ops, arguments.cases))
        else:
            mutate.run_mutate("numpy", limit=arguments.limit, report=HERE)
    renew_tables()


def write(part: str, result: dict[str, Any]) -> None:
    """Write a part's results, and say in one line what they are."""
    record = {"command": f"python -m experiments.conformance_strength {part}", **result}
    record["machine"] = machine()
    text = json.dumps(record, indent=1, ensure_ascii=False) + "\n"
    (HERE / f"record_{part}.json").write_text(text)
    print(part, {key: value for key, value in result.items() if not isinstance(value, list)})


def judge_wrong(ops: OpTable) -> dict[str, Any]:
    """Each wrong kernel under each policy; `honest_refused` by the same policies."""
    kernels = []
    for kernel in all_wrong():
        verdict = judge_function(
            kernel.function,
            kernel.hook,
            ops,
            precision=kernel.precision,
            waive=kernel.waived,
            stop_after=1,
        )
        failure = verdict.failures[0] if verdict.failures else None
        caught = {policy.name: not lets_through(policy, kernel, ops) for policy in POLICIES}
        caught[OURS] = not verdict.passed
        case = f"{failure.law}: {failure.case.id}" if failure else ""
        kernels.append({"name": kernel.name, "bug": kernel.bug, "caught": caught, "by": case})
    policies = [policy.name for policy in POLICIES] + [OURS]
    honest = [Wrong(k.hook, "", k.function, False) for k in all_honest()]
    refused = {p.name: sum(not lets_through(p, k, ops) for k in honest) for p in POLICIES}
    return {
        "count": len(kernels),
        "caught": {name: sum(kernel["caught"][name] for kernel in kernels) for name in policies},
        "honest_count": len(honest),
        "honest_refused": refused,
        "kernels": kernels,
    }


def judge_honest(ops: OpTable, count: int) -> dict[str, Any]:
    """Each honest variant on `count` drawn cases; worst: the largest error over its tolerance."""
    variants = []
    for kernel in all_honest():
        started = time.perf_counter()
        # Drawn anew until `count` are different: some are drawn twice.
        cases = list(dict.fromkeys(drawn_cases(ops, kernel.hook, 2 * count)))[:count]
        verdict = judge_function(kernel.function, kernel.hook, ops, cases=cases, waive=TEMPORARIES)
        refused = list(dict.fromkeys(failure.case.id for failure in verdict.failures))
        worst, case = verdict.worst
        variants.append(
            {
                "name": kernel.name,
                "way": kernel.way,
                "cases": verdict.cases,
                "refused": len(refused),
                "refused_cases": refused[:5],
                "worst": round(worst, 4),
                "worst_case": case,
                "seconds": round(time.perf_counter() - started, 1),
            }
        )
        print(f"{kernel.name:55} {verdict.cases} cases, {len(refused)} refused, {worst:.2f}")
    return {
        "variants_count": len(variants),
        "cases": sum(variant["cases"] for variant in variants),
        "refused": sum(variant["refused"] for variant in variants),
        "variants": variants,
    }


def renew_tables() -> None:
    """Write what the results say between README.md's marks."""
    path = HERE / "README.md"
    text = path.read_text()
    for part, table in (
        ("wrong", wrong_table),
        ("honest", honest_table),
        ("mutants", mutants_table),
    ):
        file = HERE / f"record_{part}.json"
        if file.is_file():
            begin, end = f"<!-- {part} -->\n", f"<!-- end of {part} -->"
            before, _, rest = text.partition(begin)
            _, _, after = rest.partition(end)
            text = (
                before + begin + "\n".join(table(json.loads(file.read_text()))) + "\n" + end + after
            )
    path.write_text(text)


def wrong_table(result: dict[str, Any]) -> list[str]:
    count, honest = result["count"], result["honest_count"]
    lines = ["| policy | wrong kernels caught | honest variants refused |", "|---|---|---|"]
    for name, caught in result["caught"].items():
        refused = result["honest_refused"].get(name)
        shown = "see below" if refused is None else f"{refused} of {honest}"
        lines.append(f"| {name} | {caught} of {count} | {shown} |")
    return lines


def honest_table(result: dict[str, Any]) -> list[str]:
    lines = ["| half-op | variants | cases | refused | worst error / tolerance |"]
    lines += ["|---|---|---|---|---|"]
    by_hook: dict[str, list[dict[str, Any]]] = {}
    for variant in result["variants"]:
        by_hook.setdefault(variant["name"].partition("-")[0], []).append(variant)
    for hook, variants in by_hook.items():
        cases, refused = (sum(v[key] for v in variants) for key in ("cases", "refused"))
        worst = max(v["worst"] for v in variants)
        lines.append(f"| {hook} | {len(variants)} | {cases} | {refused} | {worst:.2f} |")
    lines.append(
        f"| all | {result['variants_count']} | {result['cases']} | {result['refused']} | |"
    )
    return lines


def mutants_table(result: dict[str, Any]) -> list[str]:
    lines = ["| file | mutants | noticed | survived |", "|---|---|---|---|"]
    for name, row in {**result["files"], "all": result}.items():
        noticed = row["mutants"] - row["survived"]
        lines.append(f"| {name} | {row['mutants']} | {noticed} | {row['survived']} |")
    hows = ", ".join(f"{count} by {how}" for how, count in result["noticed"].items())
    return [*lines, "", f"Noticed: {hows}."]


if __name__ == "__main__":
    main()
