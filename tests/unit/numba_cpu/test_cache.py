"""A kernel is compiled once: the next process finds it on disk, unless a helper was edited."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

BACKEND = Path(__file__).resolve().parents[3] / "backends" / "numba_cpu"

RUN = """
import numpy as np
from backends.numba_cpu import plugin
total = np.zeros(1, np.float32)
plugin.squared_norm(total, np.full(1000, 2, np.float32))
print(total[0], plugin.compile_seconds() > 0)
"""


def python(code, root, cache, **variables):
    return subprocess.run(
        [sys.executable, "-P", "-c", f"from backends.numba_cpu import plugin\n{code}"],
        env={
            **os.environ,
            "PYTHONPATH": str(root),
            "NUMBA_CACHE_DIR": str(cache),
            **variables,
        },
        cwd=root,
        capture_output=True,
        text=True,
        timeout=120,
    )


def run(root, cache):
    done = python(RUN, root, cache)
    total, compiled = done.stdout.split()
    return float(total), compiled == "True"


def test_the_next_process_compiles_nothing_and_an_edited_helper_is_compiled_anew(tmp_path):
    root, cache = tmp_path / "checkout", tmp_path / "cache"
    copy = root / "backends" / "numba_cpu"
    shutil.copytree(BACKEND, copy, ignore=shutil.ignore_patterns("__pycache__"))
    (root / "backends" / "__init__.py").touch()
    assert run(root, cache) == (4000, True)
    assert run(root, cache) == (4000, False)
    # What a kernel calls lies in another file, which Numba's own cache does not look at.
    helper = copy / "_narrow.py"
    identity = "    return lambda x: x\n"
    source = helper.read_text()
    assert source.count(identity) == 1
    helper.write_text(source.replace(identity, "    return lambda x: np.float32(2) * x\n"))
    assert run(root, cache) == (16000, True)


def test_where_the_cache_cannot_be_written_nothing_is_kept_elsewhere_and_the_header_says_so(
    tmp_path,
):
    in_the_way = tmp_path / "file"
    in_the_way.touch()
    root = tmp_path / "checkout"
    copy = root / "backends" / "numba_cpu"
    shutil.copytree(BACKEND, copy, ignore=shutil.ignore_patterns("__pycache__"))
    (root / "backends" / "__init__.py").touch()
    assert run(root, in_the_way / "cache") == (4000, True)
    assert not list(root.rglob("*.nbi"))
    said = python("print(plugin.describe_libraries())", root, in_the_way / "cache").stdout
    assert "nowhere to keep machine code" in said


def test_without_a_compiler_the_import_says_which_variable_to_unset(tmp_path):
    done = python("", BACKEND.parents[1], tmp_path, NUMBA_DISABLE_JIT="1")
    assert done.returncode == 1
    assert "ImportError: NUMBA_DISABLE_JIT is set" in done.stderr
