"""List the installed plugins from their metadata. Imports none of them, and no NumPy."""

import argparse
from collections.abc import Iterator
from importlib.metadata import EntryPoint, entry_points

GROUPS = (
    ("harness.backends", "backends", "backend=NAME, or ops.OP=NAME"),
    ("harness.ops", "ops of plugins", "+ops.NAME=BACKEND"),
    ("harness.wrappers", "wrappers", "wrappers=[NAME]"),
)


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of `harness backends`."""
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """`harness backends`. Returns the exit code."""
    print("\n".join(installed_lines()))
    return 0


def installed_lines() -> Iterator[str]:
    """A line for each plugin: name, distribution, version, module."""
    for group, title, use in GROUPS:
        points = sorted(entry_points(group=group), key=lambda p: p.name)
        rows = [(p.name, _distribution(p), p.value) for p in points]
        if group == "harness.backends":
            rows.append(("reference", "harness, built in", "the float64 formulas of harness/ops"))
        if not rows:
            continue
        yield f"{title}  ({use})"
        for name, distribution, value in rows:
            yield f"  {name:<12} {distribution:<24} {value}"


def _distribution(point: EntryPoint) -> str:
    return f"{point.dist.name} {point.dist.version}" if point.dist else "unknown"
