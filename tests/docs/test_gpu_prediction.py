"""The predicted step of experiments/gpu_prediction is that of the plan as it is now."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def printed():
    command = [sys.executable, "-m", "experiments.gpu_prediction"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_page_has_the_table_that_the_command_prints(printed):
    text = (ROOT / "experiments" / "gpu_prediction" / "README.md").read_text(encoding="utf-8")
    lines = [line for line in printed.splitlines() if line.startswith("|")]
    assert lines
    assert "\n".join(lines) in text, "run python -m experiments.gpu_prediction"


def test_a_prediction_says_that_it_is_one(printed):
    assert printed.startswith("Predicted, not measured.")
    assert printed.count("tokens/s predicted") == 2
