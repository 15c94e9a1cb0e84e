"""What a verdict may be, what it says, and what is written of it."""

import json
import subprocess
import sys
from xml.etree import ElementTree

import numpy as np
import pytest

from harness.cli import main
from harness.conformance.check import run_check
from harness.conformance.judge import judge, judge_function
from harness.conformance.report import merged, row_of, write_report
from harness.errors import ConfigError, NumericsError, OpNotImplemented, PluginError
from harness.plugins import all_ops, load
from tests.conformance.kernels import matmul

OPS = all_ops()

RESIDUAL = """
import numpy as np
from harness import hookimpl
computes = {"fp32": "f32"}
@hookimpl
def residual_forward(out_NC, a_NC, b_NC):
    np.add(a_NC, b_NC, out=out_NC)
"""
TAIL = "    out_NC[:, out_NC.shape[1] // 8 * 8:] = 0\n"


@pytest.fixture
def backend_of(tmp_path):
    """A backend from the text of a file."""

    def write(text, name="mine.py"):
        path = tmp_path / name
        path.write_text(text)
        return load(str(path), OPS)

    return write


def test_what_a_backend_does_not_have_is_unsupported(backend_of):
    verdict = judge(backend_of(RESIDUAL), "gelu_forward", OPS)
    assert (verdict.status, verdict.cases) == ("unsupported", 0)
    assert not verdict.passed


def test_a_precision_that_is_not_declared_is_unsupported(backend_of):
    verdict = judge(backend_of(RESIDUAL), "residual_forward", OPS, precision="bf16")
    assert verdict.status == "unsupported"
    assert "bf16" in verdict.reason


def test_a_device_that_is_not_here_is_not_run_with_its_reason(backend_of):
    device = 'device = "moon"\narrays = "moon"\n'
    hooks = "".join(
        f"@hookimpl\ndef {hook}: raise OSError('no moon tonight')\n"
        for hook in (
            "empty(nbytes)",
            "view(memory, offset, shape, dtype)",
            "from_host(buffer, array)",
            "to_host(array, buffer)",
            "zero(buffer)",
            "synchronize()",
        )
    )
    verdict = judge(backend_of(RESIDUAL + device + hooks), "residual_forward", OPS)
    assert verdict.status == "not run"
    assert "no moon tonight" in verdict.reason


def test_what_is_declared_wrong_is_xfail_and_not_passed(backend_of):
    known = 'known_wrong = {"residual_forward": "the tail is not written, issue 12"}\n'
    verdict = judge(backend_of(RESIDUAL + TAIL + known), "residual_forward", OPS)
    assert (verdict.status, verdict.reason) == ("xfail", "the tail is not written, issue 12")
    assert verdict.expected_failures


def test_one_case_may_be_declared_wrong_by_its_id(backend_of):
    case = "residual_forward[N=2,C=11,normal,seed=9,fp32]"
    only = "    if out_NC.shape == (2, 11): out_NC[...] = 0\n"
    known = f'known_wrong = {{"{case}": "eleven"}}\n'
    verdict = judge(backend_of(RESIDUAL + only + known), "residual_forward", OPS)
    assert verdict.status == "xfail"
    assert verdict.expected_failures == [(case, "eleven")]


def test_what_is_declared_wrong_and_is_right_is_a_failure(backend_of):
    known = 'known_wrong = {"residual_forward[N=2,*]": "was wrong once"}\n'
    verdict = judge(backend_of(RESIDUAL + known), "residual_forward", OPS)
    assert verdict.status == "failed"
    assert "it is right" in str(verdict)


def test_known_wrong_needs_a_reason_and_a_case_that_exists(backend_of):
    with pytest.raises(PluginError, match="no reason"):
        judge(
            backend_of(RESIDUAL + 'known_wrong = {"residual_forward": ""}\n'),
            "residual_forward",
            OPS,
        )
    with pytest.raises(PluginError, match="no case"):
        judge(
            backend_of(RESIDUAL + 'known_wrong = {"residual_forward[N=2]": "x"}\n', "b.py"),
            "residual_forward",
            OPS,
        )


def test_plain_loops_are_excused_large_shapes_and_that_is_counted():
    verdict = judge(load("python", OPS), "residual_forward", OPS)
    assert verdict.passed
    assert len(verdict.excused) == 2
    assert "plain loops" in verdict.excused[0][1]


def test_a_failure_says_where_how_far_and_how_to_see_it_again(backend_of):
    backend = backend_of(RESIDUAL + TAIL)
    failure = judge(backend, "residual_forward", OPS).failures[0]
    text = str(failure)
    assert "times its tolerance off" in text
    assert "zero where it is wrong" in text
    assert "of 9" in text or "tail after tiles of 8" in text
    assert f"mine.py::residual_forward --case '{failure.case.id}'" in failure.command


def halved(out_NO, x_NI, weight_OI, bias_O):
    matmul(out_NO, x_NI, weight_OI, bias_O)
    out_NO *= 0.5


EXPLAINED = {
    "the term with bias_O is missing": lambda o, x, w, b: matmul(o, x, w, None),
    "the sign is wrong": lambda o, x, w, b: matmul(o, x, -w, None if b is None else -b),
    "everything times 1/2": halved,
    "all zeros": lambda o, x, w, b: o.fill(0),
    "moved by one along N": lambda o, x, w, b: matmul(o, np.roll(x, 1, axis=0), w, b),
}


@pytest.mark.parametrize("what", EXPLAINED)
def test_a_simple_mistake_is_called_by_its_name(what):
    def kernel(out_NO, x_NI, weight_OI, bias_O):
        EXPLAINED[what](out_NO, x_NI, weight_OI, bias_O)

    verdict = judge_function(kernel, "matmul_forward", OPS)
    assert what in str(verdict)


def test_padded_columns_are_named():
    def kernel(probs_NV, logits_NV, vocab_size):
        probs_NV[...] = np.exp(logits_NV - logits_NV[:, :vocab_size].max(axis=1, keepdims=True))
        probs_NV /= probs_NV[:, :vocab_size].sum(axis=1, keepdims=True)

    verdict = judge_function(kernel, "softmax_forward", OPS, waive=["memory"])
    assert "only in the padded columns" in str(verdict)


def test_check_returns_the_code_of_numerics_error(backend_of, capsys):
    right, wrong = backend_of(RESIDUAL), backend_of(RESIDUAL + TAIL, "wrong.py")
    assert run_check(right.name) == 0
    assert "1 passed" in capsys.readouterr().out
    assert run_check(wrong.name) == NumericsError.exit_code
    out = capsys.readouterr().out
    assert "1 failed" in out
    assert "again" in out


def test_the_command_of_a_failure_fails_again(backend_of, capsys, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    backend = backend_of(RESIDUAL + TAIL)
    import shlex

    command = shlex.split(judge(backend, "residual_forward", OPS).failures[0].command)
    assert command[:2] == ["harness", "check"]
    assert main(command[1:]) == NumericsError.exit_code
    assert "1 of 1 cases" in capsys.readouterr().out


def test_check_refuses_what_there_is_not(backend_of):
    name = backend_of(RESIDUAL).name
    with pytest.raises(ConfigError, match="neither an op nor a half") as caught:
        run_check(f"{name}::residal")
    assert caught.value.facts["nearest"] == "residual"
    with pytest.raises(OpNotImplemented, match="does not implement gelu") as caught:
        run_check(f"{name}::gelu")
    assert caught.value.facts["it has"] == "residual_forward"


def test_the_report_is_written_in_four_forms(backend_of, tmp_path):
    right, wrong = backend_of(RESIDUAL), backend_of(RESIDUAL + TAIL, "wrong.py")
    verdicts = [judge(b, "residual_forward", OPS) for b in (right, wrong)]
    verdicts.append(judge(right, "gelu_forward", OPS))
    folder = write_report(tmp_path / "report", [row_of(v) for v in verdicts])

    document = json.loads((folder / "conformance.json").read_text())
    assert document["counts"] == {
        "failed": 1,
        "xfail": 0,
        "passed": 1,
        "not run": 0,
        "unsupported": 1,
    }
    assert document["versions"]["numpy"] == np.__version__
    assert all(
        half["worst_command"].startswith("harness check")
        for half in document["halves"]
        if half["cases"]
    )
    text = (folder / "conformance.md").read_text()
    assert "digits" in text
    assert "unsupported" in text
    badge = json.loads((folder / "badge.json").read_text())
    assert badge["message"] == "1/2 half-ops"
    assert ElementTree.parse(folder / "badge.svg").getroot().tag.endswith("svg")


def test_of_several_verdicts_the_worst_counts(backend_of):
    right, wrong = backend_of(RESIDUAL), backend_of(RESIDUAL + TAIL, "wrong.py")
    rows = [row_of(judge(b, "residual_forward", OPS)) for b in (right, wrong)]
    cases = sum(row.cases for row in rows)
    rows[1].backend = rows[0].backend
    (row,) = merged(rows)
    assert (row.status, row.cases) == ("failed", cases)


def run_pytest(folder, *arguments):
    """pytest in another project's folder."""
    return subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *arguments],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=120,
    )


@pytest.fixture
def elsewhere(tmp_path):
    """A third party's project, with settings that would hide our tests."""
    (tmp_path / "pytest.ini").write_text(
        "[pytest]\npython_files=check_*.py\npython_functions=check_*\n"
    )
    (tmp_path / "check_theirs.py").write_text("def check_one():\n    assert True\n")
    (tmp_path / "mine.py").write_text(RESIDUAL)
    return tmp_path


def test_a_third_partys_settings_do_not_hide_the_suite(elsewhere):
    done = run_pytest(
        elsewhere,
        *("--pyargs", "harness.conformance", "-k", "half_op", "--harness-backend", "./mine.py"),
        *("--harness-report", "found", "-q"),
    )
    assert done.returncode == 0, done.stdout
    assert "3 passed" in done.stdout
    assert (elsewhere / "found" / "conformance.json").is_file()
    summary = done.stdout[done.stdout.index("conformance =") :]
    for status in ("failed", "xfail", "passed", "not run", "unsupported", "excused"):
        assert status in summary


def test_the_whole_package_is_collected_by_name(elsewhere):
    done = run_pytest(
        elsewhere,
        *("--pyargs", "harness.conformance", "--harness-backend", "./mine.py"),
        *("--collect-only", "-q"),
    )
    assert "test_half_op_obeys_every_law[./mine.py-residual_forward-fp32]" in done.stdout
    assert "test_reference_backward_is_the_slope" in done.stdout


def test_other_peoples_runs_are_not_disturbed(elsewhere):
    (elsewhere / "conftest.py").write_text(
        "def pytest_addoption(parser):\n    parser.addoption('--backend')\n"
    )
    done = run_pytest(elsewhere, "--backend", "theirs", "-q")
    assert done.returncode == 0, done.stdout
    assert "1 passed" in done.stdout
    assert "conformance" not in done.stdout


def test_the_plugin_imports_nothing_heavy():
    code = (
        "import sys, harness.conformance.pytest_plugin\n"
        "assert not {'numpy', 'hypothesis', 'harness.plugins.loading'} & set(sys.modules), sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_a_backend_that_was_asked_for_and_is_not_there_fails(elsewhere):
    done = run_pytest(
        elsewhere,
        *("--pyargs", "harness.conformance.test_backends", "--harness-backend", "numpi", "-q"),
    )
    assert done.returncode == 1
    assert "no backend is called 'numpi'" in done.stdout


def test_the_fixture_gives_each_backend_that_was_asked_for(elsewhere):
    (elsewhere / "check_theirs.py").write_text(
        "def check_it(harness_backend):\n    assert 'residual_forward' in harness_backend\n"
    )
    done = run_pytest(elsewhere, "--harness-backend", "./mine.py", "--harness-backend", "numpy")
    assert "2 passed" in done.stdout, done.stdout


def test_a_kernel_that_imports_another_backend_when_called_is_found_out(tmp_path):
    (tmp_path / "lazy.py").write_text(
        "from harness import hookimpl\n"
        "@hookimpl\n"
        "def gelu_forward(out_NF, x_NF):\n"
        "    from backends.numpy_cpu.gelu import gelu_forward\n"
        "    gelu_forward(out_NF, x_NF)\n"
    )
    done = subprocess.run(
        [sys.executable, "-m", "harness.cli", "check", "lazy.py"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert done.returncode == NumericsError.exit_code, done.stderr
    assert "it imports backends.numpy_cpu" in done.stdout


ELSEWHERE = """
from harness import device as host
device = "elsewhere"
arrays = "elsewhere"
@hookimpl
def empty(nbytes): return host.HOST.empty(nbytes)
@hookimpl
def view(memory, offset, shape, dtype): return host.HOST.view(memory, offset, shape, dtype)
@hookimpl
def from_host(buffer, array): buffer[...] = array
@hookimpl
def to_host(array, buffer): array[...] = buffer
@hookimpl
def zero(buffer): buffer[...] = 0
@hookimpl
def synchronize(): pass
"""


def test_a_backend_on_another_device_is_judged_by_the_same_laws(backend_of):
    assert judge(backend_of(RESIDUAL + ELSEWHERE), "residual_forward", OPS).passed
    beyond = "    import ctypes; ctypes.memset(out_NC.ctypes.data - 1, 0, 1)\n"
    verdict = judge(backend_of(RESIDUAL + beyond + ELSEWHERE, "b.py"), "residual_forward", OPS)
    assert "writes before out_NC" in str(verdict)
