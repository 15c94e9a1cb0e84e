"""The test that docs/cuda-on-cpu.md shows passes, and fails as it says when a barrier is taken away."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
PAGE = (ROOT / "docs" / "cuda-on-cpu.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```[\w+]+\n(?://|#) (\w+\.\w+)\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize(
    ("removed", "code"), [(0, 0), (1, 1)], ids=["as shown", "one barrier less"]
)
def test_the_test_that_the_page_shows_passes_and_fails_without_a_barrier(tmp_path, removed, code):
    assert [name for name, _ in BLOCKS] == ["block_sums.cu", "test_block_sums.py"]
    for name, text in BLOCKS:
        text = text.replace("  __syncthreads();\n  for", "  for", removed) if removed else text
        (tmp_path / name).write_text(text, encoding="utf-8")
    program = (
        f"import sys, pytest; sys.path.insert(0, {str(ROOT)!r}); sys.exit(pytest.main(['-q']))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == code, done.stdout
    assert code == 0 or "depends on the order" in done.stdout or "Mismatch" in done.stdout
