"""What docs/cuda-on-cpu.md says: its test, which fails without a barrier, and its errors."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from backends.cupy_cuda._options import VARIABLE
from backends.cupy_cuda.on_cpu.machine import Cpu
from harness.conformance.judge import judge
from harness.errors import ConfigError, ResourceError
from harness.plugins.loading import all_ops, load

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


def test_without_a_compiler_there_is_no_device(monkeypatch):
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.raises(ResourceError) as refused:
        Cpu()
    assert refused.value.slug == "no-compiler"
    assert "there is no no-such-compiler" in str(refused.value)


def test_a_misspelt_order_is_an_error_of_a_check_and_not_a_device_that_is_missing(monkeypatch):
    ops = all_ops()
    backend = load("cupy", ops)
    monkeypatch.setenv(VARIABLE, "suffled")
    monkeypatch.setattr("backends.cupy_cuda.plugin.machine", Cpu)
    with pytest.raises(ConfigError) as refused:
        judge(backend, "gelu_forward", ops)
    assert refused.value.slug == "unknown-thread-order"
