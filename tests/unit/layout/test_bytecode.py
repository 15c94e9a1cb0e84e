"""The processes that tests start keep their bytecode, also where none may lie beside the sources."""

import os
import subprocess
import sys
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[3]
START_A_PROCESS = """\
import subprocess, sys
import tests.conftest
subprocess.run([sys.executable, "-c", "import tiny"], check=True)
"""


def test_bytecode_is_kept_elsewhere_where_none_may_lie_beside_the_sources(tmp_path):
    (tmp_path / "tiny.py").touch()
    environment = {
        **os.environ,
        "PYTHONDONTWRITEBYTECODE": "1",
        "PYTHONPYCACHEPREFIX": str(tmp_path / "kept"),
        "PYTHONPATH": os.pathsep.join([str(REPOSITORY), str(tmp_path)]),
    }
    command = [sys.executable, "-c", START_A_PROCESS]
    subprocess.run(command, cwd=tmp_path, env=environment, check=True, timeout=300)
    assert len(list((tmp_path / "kept").rglob("tiny.*.pyc"))) == 1
    assert not (tmp_path / "__pycache__").exists()
