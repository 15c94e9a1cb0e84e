"""Fill the paragraphs of the project's Markdown to one width: python -m tests.docs.wrap [FILE ...].

Left alone: fenced blocks, tables, headings, comments, lines that end in a hard break, and what is
generated (between `<!-- NAME -->` and `<!-- end -->`, and the reports that commands write). A link or a
piece of code stays on one line, however long it is.
"""

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
WIDTH = 110

WRITTEN_BY_COMMANDS = re.compile(r"experiments/.*/(record\w*|survivors|\d{4}-.*)\.md$")
KEPT = re.compile(r"#|\||<|$|.*  $")  # of the first line: no paragraph
FENCE = re.compile(r"\s*```")
GENERATED = re.compile(r"<!-- (generated|table|keys|wrong|honest|mutants|survivors)\b.*-->$")
ITEM = re.compile(r"(\s*)([*-]|\d+\.) +")
WORD = re.compile(r"(?:\[[^\]\n]*\]\([^)\s]*\)|`[^`]*`|\S)+")
STARTS_A_BLOCK = re.compile(r"[-+*>#|]+$|\d+[.)]$")  # as the first word of a line


def pages() -> list[Path]:
    """The Markdown that people write, in the order of git."""
    listed = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard", "*.md"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    names = [name for name in listed.stdout.splitlines() if not WRITTEN_BY_COMMANDS.search(name)]
    return [ROOT / name for name in names if (ROOT / name).exists()]


def filled(text: str) -> str:
    """The text with every paragraph and list item filled to WIDTH."""
    done: list[str] = []
    paragraph: list[str] = []
    kept_until = ""  # the end of a fenced block, or of a generated part

    def close() -> None:
        done.extend(lines_of(paragraph))
        paragraph.clear()

    for line in text.splitlines():
        if kept_until:
            done.append(line)
            if line.strip().startswith(kept_until):
                kept_until = ""
        elif FENCE.match(line) or GENERATED.match(line):
            close()
            done.append(line)
            kept_until = "```" if FENCE.match(line) else "<!-- end"
        elif KEPT.match(line):
            close()
            done.append(line)
        else:
            if ITEM.match(line):
                close()
            paragraph.append(line)
    close()
    return "\n".join(done) + "\n"


def lines_of(paragraph: list[str]) -> list[str]:
    """A paragraph or a list item, filled."""
    if not paragraph:
        return []
    item = ITEM.match(paragraph[0])
    first = item[0] if item else re.match(r"\s*", paragraph[0])[0]
    rest = " " * len(first)
    words: list[str] = []
    for word in WORD.findall(" ".join(paragraph)[len(first) :]):
        if words and STARTS_A_BLOCK.match(word):
            words[-1] += f" {word}"
        else:
            words.append(word)
    lines, line = [], first + words[0]
    for word in words[1:]:
        if len(line) + 1 + len(word) > WIDTH:
            lines.append(line)
            line = rest + word
        else:
            line += f" {word}"
    return [*lines, line]


if __name__ == "__main__":
    for path in [Path(name) for name in sys.argv[1:]] or pages():
        path.write_text(filled(path.read_text(encoding="utf-8")), encoding="utf-8")
