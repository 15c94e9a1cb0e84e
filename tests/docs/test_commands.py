"""Every command of the documentation runs as it is written, and shows what the page says it shows.

The blocks of a page follow each other in an empty folder. Comments that a reader does not see say
what the blocks are:

    <!-- file: NAME -->            the next block is this file; `NAME, added`: it is added to it
                                   (or its first line says so: # my_gelu.py)
    <!-- file: NAME = OTHER -->    a copy of another file; of nothing, where OTHER is left out
    <!-- exit 5 -->                the next block's commands end with this code, and not with 0
    <!-- not run: why -->          the next block is not run

A command may begin with settings of the environment: HARNESS_CUDA_ON_CPU=1 harness check cupy::gelu;
and with "uv run", which the tests leave out: they run in the project's environment already. A page
whose commands have neither says that the environment must be activated.
"""

import os
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted([*(ROOT / "docs").rglob("*.md"), ROOT / "README.md"])
UV_RUN = "uv run "
RUN = ("harness ", "python -m harness.")
TIMEOUT_S = 300  # the first run with numba compiles, for minutes where much else runs

BLOCK = re.compile(
    r"^<!-- (?P<note>(?:file:|exit |not run:).*?) -->$|^```(?P<language>\w+)\n(?P<body>.*?)^```$",
    re.MULTILINE | re.DOTALL,
)

NAMED = re.compile(r"# (\w+\.py)\n")

SETTINGS = re.compile(r"^(?:[A-Z_]+=\S+ )+")  # of the environment, before a command

WITHOUT_FILES = re.compile(
    r"harness (?:doctor|check (?:cupy|numba_cuda|numpy)::\w+|plan experiment=\w+)$"
)
"""What neither reads a page's folder nor writes to it: run once, however many pages show it."""
DONE: dict[str, tuple[int, str]] = {}

ON_CPU = "HARNESS_CUDA_ON_CPU="
ON_CPU_WORKS = sys.platform == "linux" and shutil.which("g++") is not None


@dataclass(frozen=True)
class Block:
    """A fenced block with the note that stands before it, or a note alone (language is empty)."""

    note: str
    language: str
    body: str

    @property
    def is_console(self) -> bool:
        return self.language in ("console", "bash", "sh", "shell")

    def commands(self) -> list[tuple[str, list[str]]]:
        """Each command with the lines of output that the page shows."""
        found: list[tuple[str, list[str]]] = []
        for line in self.body.replace("\\\n", " ").splitlines():
            prompt = line.startswith("$ ")
            if prompt or self.language != "console":
                if line.strip() and not line.startswith("#"):
                    found.append((line.removeprefix("$ ").partition("  #")[0].strip(), []))
            elif line.strip() and found:
                found[-1][1].append(line)
        return found


def blocks_of(page: Path) -> list[Block]:
    blocks, note = [], ""
    for match in BLOCK.finditer(page.read_text(encoding="utf-8")):
        if match["note"] is None:
            named = NAMED.match(match["body"])
            note = note or (f"file: {named[1]}" if named else "")
            blocks.append(Block(note, match["language"], match["body"]))
            note = ""
        elif " = " in match["note"] or match["note"].endswith(" ="):
            blocks.append(Block(match["note"], "", ""))
        else:
            note = match["note"]
    return blocks


def is_run(command: str) -> bool:
    return SETTINGS.sub("", command).removeprefix(UV_RUN).startswith(RUN)


def with_commands() -> list[Path]:
    return [
        p
        for p in PAGES
        if p.parent.name != "tutorial"  # test_tutorial.py does that one, whole
        and any(is_run(c) for b in blocks_of(p) for c, _ in b.commands() if b.is_console)
    ]


@pytest.mark.parametrize("page", with_commands(), ids=lambda page: str(page.relative_to(ROOT)))
def test_the_commands_of_a_page_do_what_it_says(page, tmp_path):
    left_out = []
    for block in blocks_of(page):
        if block.note.startswith("file:"):
            write_file(tmp_path, block)
        elif block.is_console and not block.note.startswith("not run:"):
            code = int(block.note.removeprefix("exit ")) if block.note else 0
            for command, shown in block.commands():
                if command.startswith(ON_CPU) and not ON_CPU_WORKS:
                    left_out.append(command)
                elif is_run(command):
                    run(command, shown, code, tmp_path)
    if left_out:
        pytest.skip(f"CUDA on the CPU needs g++, on Linux; not run: {'; '.join(left_out)}")


@pytest.mark.parametrize("page", with_commands(), ids=lambda page: str(page.relative_to(ROOT)))
def test_a_page_says_how_its_commands_are_found(page):
    commands = [c for b in blocks_of(page) if b.is_console for c, _ in b.commands() if is_run(c)]
    bare = [c for c in commands if not SETTINGS.sub("", c).startswith(UV_RUN)]
    says = ".venv/bin/activate" in page.read_text(encoding="utf-8")
    assert says or not bare, f"uv run, or say how to activate the environment: {bare[0]}"


def test_what_is_not_run_says_why_and_is_the_smaller_part():
    blocks = [b for page in PAGES for b in blocks_of(page) if b.is_console]
    commands = [b for b in blocks if any(is_run(c) for c, _ in b.commands())]
    skipped = [b for b in commands if b.note.startswith("not run:")]
    print(f"{len(commands) - len(skipped)} blocks are run, {len(skipped)} are not:")
    print("\n".join(f"  {b.note}" for b in skipped))
    assert all(b.note.removeprefix("not run:").strip() for b in skipped), "a reason, in words"
    assert len(skipped) * 3 <= len(commands), (
        f"{len(skipped)} of {len(commands)} blocks are not run"
    )


def write_file(folder: Path, block: Block) -> None:
    name, _, source = block.note.removeprefix("file:").partition(" =")
    name, _, added = name.strip().partition(", ")
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    if not block.language:
        path.write_text((folder / source.strip()).read_text() if source.strip() else "")
    elif added:
        path.write_text(path.read_text() + "\n\n" + block.body)
    else:
        path.write_text(block.body)
    if name == "pyproject.toml":
        leave_metadata(folder)


def leave_metadata(folder: Path) -> None:
    """What an installation leaves of a pyproject.toml, beside the package: its entry points."""
    project = tomllib.loads((folder / "pyproject.toml").read_text())["project"]
    name, version = project["name"], project["version"]
    info = folder / f"{name.replace('-', '_')}-{version}.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    lines = []
    for group, points in project["entry-points"].items():
        lines += [f"[{group}]", *(f"{name} = {value}" for name, value in points.items())]
    (info / "entry_points.txt").write_text("\n".join(lines) + "\n")


def run(command: str, shown: list[str], code: int, folder: Path) -> None:
    environment = {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": str(folder),
        "COLUMNS": "100",
    }
    words = shlex.split(command)
    while SETTINGS.match(f"{words[0]} "):
        name, _, value = words.pop(0).partition("=")
        environment[name] = value
    if words[:2] == ["uv", "run"]:
        del words[:2]
    if words[0] == "python":
        words[0] = sys.executable
    elif words[0] == "harness":
        words[:1] = [sys.executable, "-m", "harness.cli"]
    key = command.replace(UV_RUN, "") if WITHOUT_FILES.search(command) else f"{folder} {command}"
    if key not in DONE or key.startswith(str(folder)):
        done = subprocess.run(
            words, cwd=folder, env=environment, capture_output=True, text=True, timeout=TIMEOUT_S
        )
        DONE[key] = done.returncode, done.stdout + done.stderr
    ended, output = DONE[key]
    assert ended == code, f"{command}\nended with {ended}:\n{output}"
    lines = [plain(line) for line in output.splitlines()]
    for line in shown:
        pattern = re.escape(plain(line)).replace(r"\.\.\.", ".*")
        assert any(re.fullmatch(pattern, printed) for printed in lines), (
            f"{command}\ndoes not print\n{line}\nbut\n{output}"
        )


VARIES = re.compile(
    r"-\d{8}-\d{6}-[0-9a-f]{4}|[\d.]+[kMG]?(?= (?:ms|s|tok/s)\b)|(?<=eta )\S+|(?<=mfu )\S+|\s+"
)


def plain(line: str) -> str:
    """A line without times, dates and widths, which differ from run to run. Losses do not."""
    return VARIES.sub(" ", line.rstrip())
