"""The tutorial is done as a reader does it: docs/tutorial/your-first-kernel.md, in the simulator.

Its blocks follow each other in an empty folder. Comments that a reader does not see say what they are:

    <!-- file: NAME, added -->             the next block is added to this file
    <!-- file: NAME, changed -->           the next block is a diff of this file: the lines with a space
    <!-- file: NAME = OTHER, changed -->   or a minus stand in it once, and become those with a space or
                                           a plus; three dots part its pieces
    <!-- exit 6 -->                        the next command ends with this code, and not with 0
    <!-- not run: why -->                  the next block is not run

What the page shows of a command's output stands in it, line after line in that order; and what the page
says in figures stands in a block.
"""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from tests.docs.test_commands import plain

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "tutorial" / "your-first-kernel.md"
RESULT = PAGE.with_name("my_layernorm.py")
BLOCK = re.compile(r"(?:^<!-- (.*?) -->\n)?^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
FIGURE = re.compile(r"(?<![\w.])\d[\d,]*\d\d(?!\w)")  # of three digits or more
KNOWN = {
    "132": "multiprocessors of an H100",
    "1024": "tokens of a sequence of GPT-2",
    "4096": "4 · 1024",
    "129": "1 + 2 · 64",
    "192": "3 · 64",
}
TIMEOUT_S = 600

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    """The folder that a reader of the whole page has in the end."""
    folder = tmp_path_factory.mktemp("tutorial")
    settings = {}
    for note, language, body in BLOCK.findall(PAGE.read_text(encoding="utf-8")):
        if note.startswith("file: "):
            write(folder, note.removeprefix("file: "), body)
        elif language == "console" and not note.startswith("not run: "):
            code = int(note.removeprefix("exit ")) if note else 0
            for command, shown in commands(body):
                if command.startswith("export "):
                    settings |= [command.removeprefix("export ").split("=")]
                else:
                    run(command, shown, code, folder, settings)
        else:
            assert language == "text" or note.startswith("not run: "), f"what is this?\n{body}"
    return folder


def test_the_whole_page_does_what_it_says(done):
    assert (done / "my_layernorm.py").exists()


def test_the_file_beside_the_page_is_what_its_reader_has_in_the_end(done):
    assert RESULT.read_text(encoding="utf-8") == (done / "my_layernorm.py").read_text("utf-8")


def test_a_reader_sees_the_name_of_a_file_before_what_goes_into_it():
    text, end = PAGE.read_text(encoding="utf-8"), 0
    for block in BLOCK.finditer(text):
        note = block[1] or ""
        if note.startswith("file: "):
            name = re.match(r"file: ([\w.]+)", note)[1]
            assert f"`{name}`" in text[end : block.start()], f"where does this go?\n{block[0]}"
        end = block.end()


def test_every_figure_of_the_prose_stands_in_a_block():
    text = PAGE.read_text(encoding="utf-8")
    blocks = "\n".join(body for _, _, body in BLOCK.findall(text))
    known = {figure.replace(",", "") for figure in FIGURE.findall(blocks)} | set(KNOWN)
    prose = re.sub(r"\]\(.*?\)|<!--.*?-->", "", BLOCK.sub("", text), flags=re.DOTALL)
    assert not {f for f in FIGURE.findall(prose) if f.replace(",", "") not in known}


def write(folder, note, body):
    name, _, kind = note.partition(", ")
    name, _, other = name.partition(" = ")
    old = (folder / (other or name)).read_text("utf-8") if kind else ""
    if kind == "changed":
        new = changed(old, body)
    else:
        assert kind in ("", "added"), note
        new = f"{old}\n\n{body}" if kind else body
    (folder / name).write_text(new, "utf-8")


def changed(text, diff):
    """A text after a diff, whose pieces are parted by lines of three dots."""
    for piece in re.split(r"^ *\.\.\.\n", diff, flags=re.MULTILINE):
        lines = piece.splitlines(keepends=True)
        assert all(line[0] in " +-\n" for line in lines), f"no diff:\n{piece}"
        old = "".join(line[1:] or line for line in lines if line[0] != "+")
        new = "".join(line[1:] or line for line in lines if line[0] != "-")
        assert text.count(old) == 1, f"{text.count(old)} times in the file:\n{old}"
        text = text.replace(old, new)
    return text


def commands(body):
    found = []
    for line in body.splitlines():
        if line.startswith("$ "):
            found.append((line.removeprefix("$ "), []))
        elif line.strip():
            found[-1][1].append(line)
    return found


def run(command, shown, code, folder, settings):
    words = shlex.split(command)
    environment = {**os.environ, "COLUMNS": "100", "PYTHONPATH": str(folder), **settings}
    while re.match(r"[A-Z_]+=", words[0]):
        environment |= [words.pop(0).split("=", 1)]
    assert words[0] in ("python", "harness"), f"a reader types {command}; what runs it here?"
    words[:1] = [sys.executable] if words[0] == "python" else [sys.executable, "-m", "harness.cli"]
    ended = subprocess.run(
        words, cwd=folder, env=environment, capture_output=True, text=True, timeout=TIMEOUT_S
    )
    output = ended.stdout + ended.stderr
    assert ended.returncode == code, f"{command}\nended with {ended.returncode}:\n{output}"
    left = iter([plain(line) for line in output.splitlines()])
    for line in shown:
        pattern = re.escape(plain(line)).replace(r"\.\.\.", ".*")
        assert any(re.fullmatch(pattern, printed) for printed in left), (
            f"{command}\ndoes not print, at that place,\n{line}\nbut\n{output}"
        )
