"""Every paragraph of the project's Markdown is filled to one width."""

import pytest

from tests.docs.wrap import ROOT, WIDTH, filled, pages


@pytest.mark.parametrize("page", pages(), ids=lambda page: str(page.relative_to(ROOT)))
def test_the_paragraphs_of_a_page_are_filled(page):
    text = page.read_text(encoding="utf-8")
    found, wanted = text.splitlines(), filled(text).splitlines()
    wrong = [
        f"{n}: {line}"
        for n, (line, as_wanted) in enumerate(zip(found, wanted, strict=False), 1)
        if line != as_wanted
    ]
    assert not wrong and len(found) == len(wanted), (
        f"not filled to {WIDTH}; python -m tests.docs.wrap does it. From line "
        f"{wrong[0] if wrong else len(wanted)}"
    )


def test_what_is_no_paragraph_is_left_alone():
    for text in (
        "```text\na\nb\n```\n",
        "| a |\n|---|\n",
        "# a\n",
        "a  \nb\n",
        "<!-- table: a -->\na\nb\n<!-- end -->\n",
    ):
        assert filled(text) == text


def test_links_and_code_are_not_broken_and_no_line_begins_a_list():
    words = "word " * 21
    assert filled(f"{words}[a link](b.md)\n") == f"{words}[a link](b.md)\n".replace(" [", "\n[")
    assert filled(f"{words}`some code`\n") == f"{words}`some code`\n".replace(" `", "\n`")
    assert not any(line.startswith("-") for line in filled(f"{words}abc - d\n").splitlines())
    assert filled(f"* {words}word\n") == f"* {words}\n  word\n".replace(" \n", "\n")
