"""Write what the contract says into `docs/ops/*.md`: `python -m harness.contract.op_docs`.

A page keeps its prose; between `<!-- generated: NAME -->` and `<!-- end -->` stands what is made here
from the op's signature. A page that is missing is begun. `--check` changes nothing, and exits 1 if a
part is stale.
"""

import argparse
import ast
import inspect
import math
import re
import sys
import textwrap
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from harness import ROOT
from harness.contract import Acc, Argument, Half, Ids, Kept, Op, Param, Stat, State, core_ops

PAGES = ROOT / "docs" / "ops"
INDEX = "README.md"

PART = re.compile(
    r"(?P<open><!-- generated: (?P<name>\w+) -->\n).*?(?P<close><!-- end -->)", re.DOTALL
)
FLOAT32_BYTES = 4


def main(argv: list[str] | None = None) -> int:
    """Write the pages, or with --check say which are stale. Returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m harness.contract.op_docs", description=__doc__)
    parser.add_argument("--check", action="store_true", help="change nothing; exit 1 if stale")
    check = parser.parse_args(argv).check
    stale = 0
    for path, text in renewed(core_ops()).items():
        before = path.read_text(encoding="utf-8") if path.exists() else None
        if text == before:
            continue
        stale += 1
        print(f"{'stale' if check else 'written'}: {path.relative_to(ROOT)}")
        if not check:
            path.write_text(text, encoding="utf-8")
    return 1 if check and stale else 0


def renewed(ops: Mapping[str, Op]) -> dict[Path, str]:
    """Every page as it should be: its prose as it is, its generated parts made anew."""
    pages = {}
    for op in ops.values():
        path = PAGES / f"{op.name}.md"
        text = path.read_text(encoding="utf-8") if path.exists() else skeleton(op)
        pages[path] = fill(text, parts_of(op))
    path = PAGES / INDEX
    pages[path] = fill(
        path.read_text(encoding="utf-8"), {"ops": "\n".join(index_rows(ops.values()))}
    )
    return pages


def fill(text: str, parts: Mapping[str, str]) -> str:
    """The text with what stands between its markers replaced; a marker of another name is an error."""

    def replace(match: re.Match[str]) -> str:
        return f"{match['open']}{parts[match['name']]}\n{match['close']}"

    return PART.sub(replace, text)


def parts_of(op: Op) -> dict[str, str]:
    """The generated parts of an op's page by name."""
    return {
        "signature": "\n".join(["```python", "\n\n".join(map(signature_text, op.halves)), "```"]),
        "arguments": "\n\n".join(
            ["\n".join(argument_rows(op, half)) for half in op.halves] + list(notes(op))
        ),
        "cost": "\n\n".join(["\n".join(cost_rows(op)), "\n".join(shape_rows(op))]),
        "links": "\n".join(link_rows(op)),
    }


def skeleton(op: Op) -> str:
    """The beginning of a page that is still to be written."""
    titles = (
        ("signature", "Signature"),
        ("arguments", "Arguments"),
        ("cost", "Cost"),
        ("links", "Read on"),
    )
    parts = [f"# {op.name}\n\n{op.summary}\n"]
    parts += [f"## {title}\n\n<!-- generated: {name} -->\n<!-- end -->\n" for name, title in titles]
    return "\n".join(parts)


# -- the signature ------------------------------------------------------------------------------


def signature_text(half: Half) -> str:
    """A half-op as Python: outputs, inputs and settings, each on lines of their own."""
    signature = half.signature
    groups = (signature.outputs, signature.inputs, signature.settings)
    lines = []
    for group in groups:
        line = ", ".join(map(str, group))
        lines += textwrap.wrap(line + ",", 92, break_long_words=False) if line else []
    body = "\n".join(f"    {line}" for line in lines)
    return f"def {half.name}(\n{body}\n) -> None: ..."


def argument_rows(op: Op, half: Half) -> Iterable[str]:
    yield f"`{half.name}`:\n"
    yield "| argument | role | shape | dtype | written by | may be `None` |"
    yield "|---|---|---|---|---|---|"
    for argument in half.signature.arguments:
        if argument.role is None:
            kind = argument.kind.__name__ if argument.kind else ""
            yield f"| `{argument.name}` | setting | | {kind} | the caller | |"
            continue
        shape, optional = " × ".join(argument.dims), "yes |" if argument.optional else "|"
        yield (
            f"| `{argument.name}` | {argument.role.__name__} | {shape} | {_dtype(argument)} "
            f"| {_writer(op, half, argument)} | {optional}"
        )


def _dtype(argument: Argument) -> str:
    assert argument.role is not None
    names = {"gradient": "float32", "own": "its own"}
    return names.get(argument.role.dtype, argument.role.dtype)


def _writer(op: Op, half: Half, argument: Argument) -> str:
    if half.signature.writes(argument):
        if argument.role is Acc:
            return "this call: overwritten, or added to if `accumulate`"
        if argument.role is State:
            return "this call, in place"
        saved = argument.role in (Stat, Kept)
        read_again = op.backward is not None and argument.name in op.backward.signature
        return "this call; the backward reads it" if saved and read_again else "this call"
    forward = op.forward.signature
    if half is not op.forward:
        if argument.name in [a.name for a in forward.outputs]:
            return f"`{forward.name}`, of whatever backend"
        if argument.name.removeprefix("d") in [a.name for a in forward.outputs]:
            return f"what `{argument.name[1:]}` flows into"
    if argument.role is Param:
        return "the optimizer"
    return "the host" if argument.role is Ids else "read only"


def notes(op: Op) -> Iterable[str]:
    """What the op file allows besides: shared memory, shared gradients, parts of a fused op."""
    for half in op.halves:
        for out, source in half.may_alias:
            yield f"In `{half.name}`, `{out}` may share the memory of `{source}`."
    for name in op.passes_gradient:
        yield f"The gradient of `{name}` *is* the output's: a plan makes no backward call."
    for name, gradient in op.shared_gradient.items():
        yield f"The gradient of `{name}` is the buffer `{gradient}`."
    if op.fused:
        parts = ", ".join(f"[{part}]({part}.md)" for part in op.parts)
        yield (
            f"Fused: it replaces {parts}. It is called as one where a single backend is chosen for "
            f"all of them; `ops.{op.name}=expand` calls the parts."
        )


# -- what it costs ------------------------------------------------------------------------------


def cost_rows(op: Op) -> Iterable[str]:
    yield "| | FLOPs | bytes at least, in float32 |"
    yield "|---|---|---|"
    for half in op.halves:
        yield f"| `{half.name}` | `{_formula(half.flops)}` | `{_bytes(half)}` |"


def shape_rows(op: Op) -> Iterable[str]:
    yield "| at GPT-2 124M's | half | MFLOP | MB | FLOP per byte |"
    yield "|---|---|---|---|---|"
    for dims in op.shapes:
        named = " ".join(f"{letter}={size}" for letter, size in dims.items())
        for half in op.halves:
            flops = half.count_flops(dims)
            moved = half.count_bytes(dims, lambda argument: FLOAT32_BYTES)
            yield (
                f"| {named} | `{half.name}` | {flops / 1e6:,.2f} | {moved / 1e6:,.2f} "
                f"| {flops / moved:,.2f} |"
            )


def _bytes(half: Half) -> str:
    """An op's own count where it gathers; otherwise each buffer once, `State` both ways."""
    if half.bytes is not None:
        return _formula(half.bytes)
    counts: Counter[tuple[str, ...]] = Counter()
    for argument in half.signature.buffers:
        digits = [int(d) for d in argument.dims if d.isdigit()]
        letters = tuple(d for d in argument.dims if not d.isdigit())
        counts[letters] += math.prod(digits) * (2 if argument.role is State else 1)
    terms = [
        " * ".join([*([str(count)] if count > 1 or not letters else []), *letters])
        for letters, count in counts.items()
    ]
    return f"{FLOAT32_BYTES} * ({' + '.join(terms)})"


def _formula(function: Callable[..., Any]) -> str:
    """What a function of an op file returns, as it is written there."""
    tree = ast.parse(textwrap.dedent(inspect.getsource(function)))
    (definition,) = tree.body
    assert isinstance(definition, ast.FunctionDef)
    last = definition.body[-1]
    assert isinstance(last, ast.Return) and last.value is not None
    return ast.unparse(last.value)


# -- where to go from here ----------------------------------------------------------------------


def link_rows(op: Op) -> Iterable[str]:
    file = f"harness/ops/{op.name}.py"
    yield f"* the contract and the float64 formula: [{file}](../../{file})"
    for path in sorted((ROOT / "backends").glob(f"*/{op.name}.py")):
        file = path.relative_to(ROOT).as_posix()
        yield f"* [{file}](../../{file})"
    halves = "" if op.backward is None else f", or one half: `ops.{op.name}_backward=NAME`"
    yield f"* choose a backend for it: `ops.{op.name}=NAME`{halves}"
    yield f"* judge one: `harness check NAME::{op.name}`"


def index_rows(ops: Iterable[Op]) -> Iterable[str]:
    yield "| op | what it is for | parts |"
    yield "|---|---|---|"
    for op in ops:
        parts = " + ".join(op.parts)
        yield f"| [{op.name}]({op.name}.md) | {op.summary} | {parts} |"


if __name__ == "__main__":
    sys.exit(main())
