"""docs/errors.md lists every error that the source can raise, under its class; and no other."""

import ast
import inspect
import re
from collections import defaultdict
from functools import cache
from pathlib import Path

from harness import errors
from harness.errors import HarnessError

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "errors.md"


@cache
def raised():
    """slug -> the classes that it is raised as, read from the source of the package."""
    found = defaultdict(set)
    for file in sorted([*(ROOT / "harness").rglob("*.py"), *(ROOT / "backends").rglob("*.py")]):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if not isinstance(node, ast.Call):
                continue
            for keyword in node.keywords:
                if keyword.arg == "slug":
                    assert isinstance(keyword.value, ast.Constant), f"{file}:{node.lineno}: a word"
                    found[keyword.value.value].add(ast.unparse(node.func).rpartition(".")[2])
    return found


@cache
def listed():
    """slug -> the class under whose heading it stands."""
    found = {}
    for section in PAGE.read_text(encoding="utf-8").split("\n## ")[1:]:
        heading, _, body = section.partition("\n")
        for names in re.findall(r"^\| (`[a-z].*?) \|", body, re.MULTILINE):
            for slug in re.findall(r"`([a-z0-9-]+)`", names):
                assert slug not in found, f"{slug} is listed twice"
                found[slug] = heading
    return found


def test_every_error_of_the_source_is_listed_and_no_other():
    missing, gone = set(raised()) - set(listed()), set(listed()) - set(raised())
    assert not missing, f"docs/errors.md lacks {sorted(missing)}"
    assert not gone, f"docs/errors.md lists what nothing raises: {sorted(gone)}"


def test_an_error_stands_under_its_class():
    for slug, heading in listed().items():
        assert raised()[slug] == {heading}, slug


def test_names_are_words_with_dashes():
    assert all(re.fullmatch(r"[a-z][a-z0-9]*(-[a-z0-9]+)+", slug) for slug in raised())


def test_the_exit_codes_are_those_of_the_classes():
    rows = re.findall(r"^\| (\d+) \| (`.+?`) \|", PAGE.read_text(encoding="utf-8"), re.MULTILINE)
    told = {name: int(code) for code, names in rows for name in re.findall(r"\w+", names)}
    classes = [c for _, c in inspect.getmembers(errors, inspect.isclass) if c is not HarnessError]
    assert told == {c.__name__: c.exit_code for c in classes}
