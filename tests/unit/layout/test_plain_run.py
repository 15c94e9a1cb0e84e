"""What a plain `pytest` leaves out: no test of fp32, nothing unsaid, and all of it in .ci/run."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import (
    COMPILED_OR_SIMULATED,
    LEFT_OUT,
    group_of,
    is_left_out,
    is_plain,
    pytest_collection_modifyitems,
)

ROOT = Path(__file__).resolve().parents[3]
SUITE = "tests/conformance/test_suite.py::test_half_op_obeys_every_law"


def test_the_mark_and_the_deselection_are_of_the_same_tests(request, monkeypatch):
    command = [sys.executable, "-m", "pytest", "--collect-only", "-q", "-p", "no:cacheprovider"]
    of_suite = [*command, SUITE.partition("::")[0], "-m", LEFT_OUT, "-k", "gelu_forward"]
    done = subprocess.run(of_suite, cwd=ROOT, capture_output=True, text=True)
    marked = {line for line in done.stdout.splitlines() if "::" in line}
    assert len(marked) == 24  # 2 ops; numba and numba_cuda in bf16, cupy in tf32 too; 3 tests
    assert all(is_left_out(name) for name in marked)

    class Item:
        def __init__(self, nodeid, mark):
            self.nodeid, self._mark = nodeid, mark

        def get_closest_marker(self, name):
            return self._mark == name or None

    kept = Item("kept", "slow")
    items = [Item("left", LEFT_OUT), kept, Item("left too", LEFT_OUT)]
    monkeypatch.setattr(request.config, "args", [str(ROOT / "tests")])
    monkeypatch.setattr(request.config.option, "markexpr", "")
    monkeypatch.setattr(request.config.option, "keyword", "")
    deselected = []
    monkeypatch.setattr(
        request.config.hook, "pytest_deselected", lambda items: deselected.extend(items)
    )
    pytest_collection_modifyitems(request.config, items)
    assert items == [kept]
    assert [item.nodeid for item in deselected] == ["left", "left too"]


@pytest.mark.parametrize("backend", ["numpy", "python", *COMPILED_OR_SIMULATED])
def test_every_backend_is_held_to_its_list_of_fp32(backend):
    assert not is_left_out(f"{SUITE}[{backend}-gelu_forward-fp32]")
    assert is_left_out(f"{SUITE}[{backend}-gelu_forward-bf16]") == (
        backend in COMPILED_OR_SIMULATED
    )


def test_ci_runs_the_plain_command_and_what_it_leaves_out():
    script = (ROOT / ".ci" / "run").read_text(encoding="utf-8").splitlines()
    commands = [line.partition("  #")[0] for line in script]
    assert "uv run pytest" in commands
    assert f"uv run pytest -m {LEFT_OUT}" in commands


def test_a_choice_of_tests_is_not_a_plain_run(request, monkeypatch):
    config = request.config
    monkeypatch.setattr(config.option, "markexpr", "")
    monkeypatch.setattr(config.option, "keyword", "")
    monkeypatch.setattr(config, "args", [str(ROOT / "tests")])
    assert is_plain(config)
    monkeypatch.setattr(config.option, "keyword", "gelu")
    assert not is_plain(config)
    monkeypatch.setattr(config.option, "keyword", "")
    monkeypatch.setattr(config, "args", [str(ROOT / "tests" / "conformance")])
    assert not is_plain(config)


def test_a_group_is_an_op_but_for_numba_whose_ops_share_what_they_compile():
    assert group_of(f"{SUITE}[cupy-gelu_forward-fp32]") == "suite gelu"
    assert group_of(f"{SUITE}[numpy-attention_decode-fp32]") == "suite attention_decode"
    assert group_of(f"{SUITE}[numba-gelu_forward-fp32]") == "suite of numba"
    assert group_of("tests/conformance/test_suite.py::test_slope[gelu-3]") == "suite gelu"
