"""`pytest --junitxml=FILE`, which most build servers pass: what a test recorded stands in the file."""

import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest

REPOSITORY = Path(__file__).resolve().parents[3]
TEST = """\
def test_one(record_property):
    record_property("logits", "1.0e-07")
"""


@pytest.mark.parametrize("workers", [0, 2])
def test_what_a_test_records_is_in_the_junit_file(workers, tmp_path):
    if workers:
        pytest.importorskip("xdist", reason="pytest-xdist is not installed: no workers")
    (tmp_path / "test_tiny.py").write_text(TEST)
    settings = ["-c", str(REPOSITORY / "pyproject.toml"), "--rootdir", str(tmp_path)]
    command = [sys.executable, "-m", "pytest", *settings, "-p", "no:cacheprovider"]
    if workers:
        command += ["-n", str(workers)]
    done = subprocess.run(
        [*command, "--junitxml=report.xml", "test_tiny.py"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    case = ElementTree.parse(tmp_path / "report.xml").find(".//testcase")
    properties = {p.get("name"): p.get("value") for p in case.iter("property")}
    assert properties == {"logits": "1.0e-07"}
