"""The matrix under pytest: only when asked, and with its table."""

import os
import subprocess
import sys
from pathlib import Path

from harness.plugins.loading import installed

REPOSITORY = Path(__file__).resolve().parents[3]
CHOSEN = "residual_forward and N64"


def run_pytest(*arguments):
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *arguments]
    result = subprocess.run(
        [*command, "tests/benchmarks", "-k", CHOSEN],
        cwd=REPOSITORY,
        env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    return result.returncode, result.stdout + result.stderr


def test_a_plain_run_deselects_the_matrix_and_counts_it():
    code, output = run_pytest()
    assert code == 5, output  # pytest's "no tests were run"
    assert "0 selected" in output
    assert "ops against the roofline" not in output


def test_asked_for_it_is_timed_and_its_table_printed():
    code, output = run_pytest("--benchmark-only")
    assert code == 0, output
    assert "ops against the roofline" in output
    table = output[output.index("ops against the roofline") :]
    assert "residual_forward N64 C64" in table
    assert "% roofline" in table
    excused = {b for b in installed() if f"excused: 1 of {b}: one thread at a time" in table}
    assert excused <= {"numba_cuda"}
    for backend in set(installed()) - excused:
        assert f"\n  {backend}" in table
    assert f"{len(installed()) - len(excused)} timed" in table
