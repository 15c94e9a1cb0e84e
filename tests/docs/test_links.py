"""Every link of the documentation leads to a file that is there, and to a heading that it has."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted(
    [*(ROOT / "docs").rglob("*.md"), *(ROOT / "experiments").rglob("*.md"), *ROOT.glob("*.md")]
)
LINK = re.compile(r"(?<!!)\[[^\]\n]+\]\(([^)\s]+)\)")


def links_of(page):
    text = re.sub(
        r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE
    )
    return [link for link in LINK.findall(text) if "://" not in link]


def anchors_of(page):
    headings = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", h).strip().lower().replace(" ", "-") for h in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_the_links_of_a_page_lead_somewhere(page):
    for link in links_of(page):
        name, _, anchor = link.partition("#")
        target = (page.parent / name).resolve() if name else page
        assert target.exists(), f"{page.name}: {link}"
        assert target.is_relative_to(ROOT), f"{page.name}: {link} leads out of the repository"
        if anchor:
            assert anchor in anchors_of(target), f"{page.name}: {link} has no such heading"


def test_every_page_is_reached_from_the_readme():
    reached, todo = set(), [ROOT / "README.md"]
    while todo:
        page = todo.pop()
        if page in reached:
            continue
        reached.add(page)
        for link in links_of(page):
            target = (page.parent / link.partition("#")[0]).resolve()
            target = target / "README.md" if (target / "README.md").is_file() else target
            if target.suffix == ".md" and target.is_file():
                todo.append(target)
    assert not {str(p.relative_to(ROOT)) for p in (ROOT / "docs").rglob("*.md")} - {
        str(p.relative_to(ROOT)) for p in reached
    }


def test_every_python_block_of_the_tutorial_is_a_file_that_is_run():
    text = (ROOT / "docs" / "write-a-backend" / "README.md").read_text(encoding="utf-8")
    blocks = re.findall(r"^(.*)\n```python$", text, re.MULTILINE)
    assert len(blocks) >= 5
    assert all(before.startswith("<!-- file: ") for before in blocks)


def test_the_files_that_the_architecture_names_are_there():
    text = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    diagram = text.partition("```text\n")[2].partition("```")[0]
    named = set(re.findall(r"[\w/]+\.py|\w+/(?= )", diagram)) - {"mine.py", "/mine.py"}
    assert len(named) > 10
    assert not {name for name in named if not (ROOT / "harness" / name).exists()}


def test_the_index_of_docs_links_every_page():
    docs = ROOT / "docs"
    linked = {(docs / link.partition("#")[0]).resolve() for link in links_of(docs / "README.md")}
    linked |= {path / "README.md" for path in linked if path.is_dir()}
    decisions = set((docs / "decisions").glob("*.md"))  # which have an index of their own
    missing = set(docs.rglob("*.md")) - decisions - linked - {docs / "README.md"}
    assert not {str(page.relative_to(ROOT)) for page in missing}
    assert docs / "decisions" / "README.md" in linked


def test_the_index_of_the_experiments_links_every_folder_and_says_its_command():
    folder = ROOT / "experiments"
    text = (folder / "README.md").read_text(encoding="utf-8")
    rows = dict(
        re.findall(r"^\| \[[^\]]+\]\((\w+)/README\.md\) \| `([^`]+)` \| .+ \|$", text, re.MULTILINE)
    )
    assert set(rows) == {page.parent.name for page in folder.glob("*/README.md")}
    for name, command in rows.items():
        assert command in (folder / name / "README.md").read_text(encoding="utf-8"), name


def test_the_records_of_the_experiments_have_one_name():
    listed = (ROOT / "experiments").glob("*/*.json")
    dated = {"gpu_acceptance"}  # many records of one kind, by day and device
    names = {f"{p.parent.name}/{p.name}" for p in listed if p.parent.name not in dated}
    given = {"cuda_mutants/explained.json"}  # what a person wrote, and no run
    assert not {name for name in names if not re.search(r"/record(_\w+)?\.json$", name)} - given
