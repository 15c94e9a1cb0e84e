"""The tables of README.md and docs/results.md are what the records under experiments/ say."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def test_every_table_is_what_its_record_says():
    command = [sys.executable, "-m", "experiments.tables", "--check"]
    assert subprocess.run(command, cwd=ROOT).returncode == 0, "run python -m experiments.tables"


def test_every_experiment_says_its_question_and_command():
    for folder in (ROOT / "experiments").iterdir():
        if folder.is_dir() and folder.name != "__pycache__":
            text = (folder / "README.md").read_text(encoding="utf-8")
            assert "**Question.**" in text and "**Command.**" in text, folder.name
