"""docs/ops names every hook with its exact arguments, and its generated parts are those of today."""

import ast
import inspect
import re
from pathlib import Path

import pytest

from harness.contract import core_ops, op_docs

OPS = core_ops()
PAGES = Path(__file__).resolve().parents[2] / "docs" / "ops"
of_op = pytest.mark.parametrize("op", OPS.values(), ids=list(OPS))


def page_of(op):
    return (PAGES / f"{op.name}.md").read_text(encoding="utf-8")


def signatures_on(page):
    """The functions that a page shows as Python: name -> {argument: annotation}."""
    found = {}
    for code in re.findall(r"^```python\n(.*?)^```", page, re.MULTILINE | re.DOTALL):
        for node in ast.parse(code).body:
            if isinstance(node, ast.FunctionDef):
                arguments = node.args.args
                found[node.name] = {a.arg: ast.unparse(a.annotation) for a in arguments}
    return found


def declared(spec):
    """The same of a hook specification, from Python's own inspection."""
    parameters = inspect.signature(spec).parameters.values()
    return {
        p.name: getattr(p.annotation, "__name__", None)
        or " | ".join(
            "None" if part is type(None) else part.__name__ for part in p.annotation.__args__
        )
        for p in parameters
    }


@of_op
def test_every_hook_is_shown_with_its_exact_arguments(op):
    shown = signatures_on(page_of(op))
    assert set(shown) == set(op.hooks)
    for half in op.halves:
        assert list(shown[half.name].items()) == list(declared(half.spec).items())


@of_op
def test_every_buffer_has_its_row(op):
    page = page_of(op)
    for half in op.halves:
        table = page.partition(f"`{half.name}`:\n")[2].partition("\n\n`")[0]
        rows = re.findall(r"^\| `(\w+)` \| (\w+) \|", table, re.MULTILINE)
        expected = [
            (a.name, a.role.__name__ if a.role else "setting") for a in half.signature.arguments
        ]
        assert rows == expected


@of_op
def test_a_page_explains_and_does_not_only_list(op):
    headings = re.findall(r"^## (.+)$", page_of(op), re.MULTILINE)
    assert "Formula" in headings
    assert any("suite looks for" in h for h in headings), "what is checked here, and why"
    if op.backward is not None:
        assert any("in steps" in h for h in headings), "the backward, derived"


def test_the_generated_parts_are_fresh():
    stale = [
        p.name for p, text in op_docs.renewed(OPS).items() if text != p.read_text(encoding="utf-8")
    ]
    assert not stale, "python -m harness.contract.op_docs"


def test_check_tells_stale_pages_by_its_exit_code(monkeypatch, tmp_path, capsys):
    for page in PAGES.glob("*.md"):
        (tmp_path / page.name).write_text(page.read_text(encoding="utf-8"), encoding="utf-8")
    monkeypatch.setattr(op_docs, "PAGES", tmp_path)
    monkeypatch.setattr(op_docs, "ROOT", tmp_path)
    (tmp_path / "gelu.md").write_text(page_of(OPS["gelu"]).replace("x_NF: In", "x_NC: In"))
    # Links to backends are relative to the root, which is elsewhere now: all pages are stale.
    assert op_docs.main(["--check"]) == 1
    assert "gelu.md" in capsys.readouterr().out
    assert op_docs.main([]) == 0
    assert op_docs.main(["--check"]) == 0
    assert "x_NF: In" in (tmp_path / "gelu.md").read_text(encoding="utf-8")


def test_prose_is_left_as_it_is():
    page = "before\n<!-- generated: cost -->\nold\n<!-- end -->\nafter\n"
    expected = "before\n<!-- generated: cost -->\nnew\n<!-- end -->\nafter\n"
    assert op_docs.fill(page, {"cost": "new"}) == expected


def test_a_marker_of_an_unknown_part_is_an_error():
    with pytest.raises(KeyError, match="colour"):
        op_docs.fill("<!-- generated: colour -->\n<!-- end -->", {"cost": "new"})
