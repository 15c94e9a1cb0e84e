"""kill -9 at any moment of a save leaves a complete checkpoint, and never an older one than promised."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

SAVER = [sys.executable, str(Path(__file__).with_name("saver.py"))]
STRACE = shutil.which("strace")
BEYOND_A_SAVE = 200  # calls of one kind in the saves of one child: fewer than this


def deaths(command):
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    died, checked = re.fullmatch(r"deaths (\d+), checked (\d+)\n", done.stdout).groups()
    assert died == checked
    return int(died)


def test_killed_at_random_times_a_complete_checkpoint_is_left(tmp_path):
    assert deaths([*SAVER, tmp_path / "checkpoints", "random", "2"]) >= 5


def test_killed_at_each_system_call_a_complete_checkpoint_is_left(tmp_path):
    assert deaths([*SAVER, tmp_path / "checkpoints", "calls"]) >= 100


# How many there must be at least, in four saves: if fewer are seen, the test looks in the wrong place.
@pytest.mark.parametrize(
    ("call", "at_least"), [("write", 12), ("fsync", 16), ("rename", 5), ("mkdir", 4)]
)
def test_killed_by_strace_at_each_call_a_complete_checkpoint_is_left(tmp_path, call, at_least):
    if STRACE is None:
        pytest.skip("strace is not installed")
    strace = [STRACE, "-f", "-qq", "-o", "/dev/null", "-e", f"trace={call}"]
    if subprocess.run([*strace, "true"], capture_output=True).returncode != 0:
        pytest.skip("strace may not trace here")
    inject = ["-e", f"inject={call}:signal=KILL:when={BEYOND_A_SAVE}"]
    saver = [*SAVER, tmp_path / "checkpoints", "strace", call, str(BEYOND_A_SAVE)]
    assert deaths([*strace, *inject, *saver]) >= at_least
