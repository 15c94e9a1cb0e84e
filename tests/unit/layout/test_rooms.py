"""The order of rooms: what a file of `harness/` may import, and how much a folder or file may hold.

The order stands in docs/architecture.md, once. An import counts wherever it stands: at the top of a
file, inside a function, or for types alone.
"""

import ast
import re
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
PAGE = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")

EXCEPTIONS: dict[tuple[str, str], str] = {}
"""(module, module that it imports against the order) -> why. None is needed; five would be the most."""

MAX_EXCEPTIONS = 5
MAX_LOOSE_MODULES = 8
MAX_FOLDER_FILES = 16
MAX_FILE_LINES = 400
LISTS_OF_OPS = {"ops", *(plugin.parent.name for plugin in (ROOT / "backends").glob("*/plugin.py"))}
"""Folders with a file for each op, which are as long as GPT-2 is."""


def rooms_in_order() -> list[list[str]]:
    block = re.search(r"^```rooms\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE)
    assert block
    return [line.split() for line in block[1].splitlines()]


@cache
def modules() -> dict[str, Path]:
    """Dotted name -> file, of everything in `harness/` and `backends/`."""
    found = {}
    for folder in ("harness", "backends"):
        for file in sorted((ROOT / folder).rglob("*.py")):
            words = file.relative_to(ROOT).with_suffix("").parts
            found[".".join(words[:-1] if words[-1] == "__init__" else words)] = file
    return found


def imported(name: str, source: str, is_package: bool, known: set[str]) -> set[str]:
    """The modules of ours that a file imports, whatever it takes from them."""

    def nearest(dotted: str) -> str:
        while dotted and dotted not in known:
            dotted = dotted.rpartition(".")[0]
        return dotted

    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found |= {nearest(alias.name) for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                package = name.split(".") if is_package else name.split(".")[:-1]
                above = package[: len(package) - node.level + 1]
                base = ".".join([*above, base] if base else above)
            found |= {nearest(f"{base}.{alias.name}") for alias in node.names}
    return found - {"", name}


@cache
def imports() -> dict[str, set[str]]:
    known = set(modules())
    return {
        name: imported(name, file.read_text(encoding="utf-8"), file.name == "__init__.py", known)
        for name, file in modules().items()
    }


def room_of(name: str) -> str:
    """`harness.planning.arena` -> `planning`; of the package `harness` itself, and of a backend: ''."""
    words = name.split(".")
    return words[1] if words[0] == "harness" and len(words) > 1 else ""


def against_the_order(of: dict[str, set[str]], order: list[list[str]]) -> set[tuple[str, str]]:
    rank = {room: number for number, level in enumerate(order) for room in level}
    return {
        (name, target)
        for name, targets in of.items()
        for target in targets
        if room_of(name) != room_of(target)
        and room_of(target)
        and rank.get(room_of(name), -1) >= rank[room_of(target)]
    }


def circle_in(of: dict[str, set[str]]) -> list[str]:
    """The files of one circle, in the order in which they import each other; empty: there is none."""
    try:
        TopologicalSorter(of).prepare()
    except CycleError as error:
        return list(error.args[1])
    return []


def test_every_folder_and_file_of_the_harness_is_a_room_with_a_place():
    inside = {p.stem for p in (ROOT / "harness").iterdir() if p.suffix == ".py" or is_package(p)}
    listed = [room for level in rooms_in_order() for room in level]
    assert sorted(listed) == sorted(inside - {"__init__"})


def is_package(folder: Path) -> bool:
    return (folder / "__init__.py").is_file()


def test_an_import_goes_down_or_stays_in_its_room():
    found = against_the_order(imports(), rooms_in_order())
    assert found == set(EXCEPTIONS)
    assert len(EXCEPTIONS) <= MAX_EXCEPTIONS
    assert all(EXCEPTIONS.values()), "each has its reason"


def test_a_backend_imports_nothing_that_runs_a_plan():
    order = rooms_in_order()
    (floor,) = [number for number, level in enumerate(order) if "planning" in level]
    above = {room for level in order[:floor] for room in level}
    found = {
        (name, target)
        for name, targets in imports().items()
        for target in targets
        if name.startswith("backends.") and room_of(target) in above
    }
    assert not found


def test_the_harness_knows_its_backends_as_plugins_only():
    found = {
        (name, target)
        for name, targets in imports().items()
        for target in targets
        if name.startswith("harness") and target.startswith("backends")
    }
    assert not found


def test_no_files_import_each_other_in_a_circle():
    assert circle_in(imports()) == []


def test_the_harness_has_few_loose_modules():
    assert len(list((ROOT / "harness").glob("*.py"))) <= MAX_LOOSE_MODULES


def test_no_folder_is_too_full():
    folders = {file.parent for file in modules().values()}
    files = {f: len(list(f.glob("*.py"))) for f in folders if f.name not in LISTS_OF_OPS}
    assert not {str(f.relative_to(ROOT)): n for f, n in files.items() if n > MAX_FOLDER_FILES}


def test_no_file_is_too_long():
    lines = {f: len(f.read_text(encoding="utf-8").splitlines()) for f in modules().values()}
    assert not {str(f.relative_to(ROOT)): n for f, n in lines.items() if n > MAX_FILE_LINES}


def test_the_architecture_page_says_of_each_room_what_its_own_first_lines_say():
    rows = dict(re.findall(r"^\| `(harness/[\w.]+)` \| (.+) \|$", PAGE, re.MULTILINE))
    expected = {}
    for room in (room for level in rooms_in_order() for room in level):
        folder = ROOT / "harness" / room
        file = folder / "__init__.py" if folder.is_dir() else folder.with_suffix(".py")
        docstring = ast.get_docstring(ast.parse(file.read_text(encoding="utf-8"))) or ""
        path = f"harness/{room}" if folder.is_dir() else f"harness/{room}.py"
        expected[path] = " ".join(docstring.partition("\n\n")[0].split())
    assert rows == expected


@pytest.mark.parametrize(
    "line",
    [
        "from harness.run import data",
        "from harness.run.data import RunData",
        "import harness.run.data",
        "from ..run import data",
        "from ..run.data import RunData",
        "def f():\n    from harness.run.data import RunData",
        "if TYPE_CHECKING:\n    from harness.run.data import RunData",
    ],
)
def test_an_import_against_the_order_is_found_however_it_is_written(line):
    known = {"harness", "harness.run", "harness.run.data", "harness.planning.arena"}
    found = imported("harness.planning.arena", line, False, known)
    assert found == {"harness.run.data"}
    of = {"harness.planning.arena": found}
    assert against_the_order(of, [["run"], ["planning"]])
    assert not against_the_order(of, [["planning"], ["run"]])
    assert against_the_order(of, [["planning", "run"]]), "rooms on one level do not know each other"


def test_a_room_that_imports_from_its_own_package_is_read_right():
    known = {"harness.graph", "harness.graph.program", "harness.errors"}
    assert imported("harness.graph", "from .program import x", True, known) == {
        "harness.graph.program"
    }
    assert imported("harness.graph", "from ..errors import x", True, known) == {"harness.errors"}


def test_a_circle_is_found():
    assert circle_in({"a": {"b"}, "b": {"c"}, "c": {"a"}}) != []
    assert circle_in({"a": {"b", "c"}, "b": {"c"}, "c": set()}) == []
