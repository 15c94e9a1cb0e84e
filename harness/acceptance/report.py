"""A record as a page of Markdown: the machine, what was requested, and what each part found."""

from collections.abc import Mapping
from typing import Any

from harness.acceptance.goals import goals
from harness.acceptance.part import Part
from harness.acceptance.record import ON_CPU


def as_markdown(record: Mapping[str, Any], parts: Mapping[str, Part]) -> str:
    machine = record["machine"]
    on = record["on"]
    text = [f"# Acceptance of {record['device']}, {record['date']}", ""]
    if on == ON_CPU:
        text += [f"**{ON_CPU}: a rehearsal of the machinery. Nothing here ran on a GPU.**", ""]
    text += [
        f"* on: {on}",
        f"* driver {machine.get('driver', 'none')}, CUDA {machine.get('cuda', 'none')},"
        f" {machine.get('memory_bytes', 0) / 2**30:.0f} GiB",
        f"* commit {record['commit'] or 'unknown'}, sources {record['sources']}",
        *(f"* {name}: {found['describe']}" for name, found in record["asked"]["backends"].items()),
        *(f"* {name}: not run ({reason})" for name, reason in record["absent"].items()),
        f"* {record['seconds']:.0f} s of {record['budget_s']:g} s",
        "",
        "| part | status | seconds | reason |",
        "|---|---|---:|---|",
    ]
    for name, found in record["parts"].items():
        reason = found["reason"].replace("|", "/").replace("\n", " ")
        text.append(f"| {name} | {_status(found, on)} | {found['seconds']:.0f} | {reason} |")
    text += ["", "## Goals", "", *(f"* {goal}" for goal in record["goals"]), ""]
    for name, part in parts.items():
        found = record["parts"].get(name)
        if found is None or not found["lanes"]:
            continue
        text += [f"## {name}: {part.question}", "", f"{_status(found, on)}", ""]
        text += [*part.lines(found["lanes"]), ""]
    return "\n".join(text)


def _status(found: Mapping[str, Any], on: str) -> str:
    status: str = found["status"]
    return f"{status} ({ON_CPU})" if on == ON_CPU else status


def goal_lines(record: Mapping[str, Any]) -> list[str]:
    """The goals beside what was found; a rehearsal has none."""
    if record["on"] == ON_CPU:
        return [f"not run: {ON_CPU}"]
    results = {name: found["lanes"] for name, found in record["parts"].items()}
    return [goal.line() for goal in goals(results, record["on"])]
