"""`harness doctor` says how the machine stands, with a remedy, and breaks on nothing."""

import json

import pytest

from harness import cli
from harness.doctor import examination, machine, software
from harness.doctor.line import MISSING, OK, WARN, Line, Measured
from harness.errors import PluginError, ResourceError
from harness.machine import blas_speed
from harness.machine.blas_speed import Speed
from harness.machine.threads import THREAD_VARIABLES

FAST = Speed(threads=2, as_is=100e9, kernels="Haswell", one_thread=55e9)


@pytest.fixture
def examined(workplace, capfd, monkeypatch):
    """Examine in this process: exit code, and the lines by topic.

    speed: what is measured. first_step: take that of the default run, which is most of the time.
    """
    for name in (*THREAD_VARIABLES, "OPENBLAS_CORETYPE"):
        monkeypatch.delenv(name, raising=False)

    def examine(speed=FAST, *, first_step=False):
        if not first_step:
            monkeypatch.setattr(software, "default_run", lambda measured: iter(()))
        monkeypatch.setattr(blas_speed, "measure", lambda threads: speed)
        capfd.readouterr()
        code = cli.main(["doctor", "--json"])
        record = json.loads(capfd.readouterr().out)
        assert record["exit_code"] == code
        lines: dict[str, list[Line]] = {}
        for line in record["lines"]:
            lines.setdefault(line["topic"], []).append(Line(**line))
        return code, lines, record["measured"]

    return examine


def test_a_machine_on_which_the_default_run_works_is_told_so(workplace, capfd):
    """As it is typed, with its measurements."""
    assert cli.main(["doctor"]) == 0
    out = capfd.readouterr().out
    assert "ok       backend     numpy: " in out
    assert "ok       default run the first step" in out
    assert "GFLOP/s as the environment is" in out
    assert out.splitlines()[-1].endswith("the default run works")


def test_every_topic_has_a_line_and_what_is_wrong_has_a_remedy(examined):
    code, lines, measured = examined(first_step=True)
    assert code == 0
    topics = {"python", "packages", "cores", "threads", "memory", "backend", "blas", "environment"}
    topics |= {
        "default run",
        "runs folder",
        "numba",
        "cuda",
        "tiktoken",
        "torch",
        "matmul",
        "peaks",
    }
    assert topics <= set(lines)
    assert {line.status for found in lines.values() for line in found} <= {OK, WARN, MISSING}
    for line in (line for found in lines.values() for line in found):
        assert line.status == OK or line.do or "only" in line.text, line
    assert measured["matmul_gflops_per_s"] == 100.0 and measured["first_step_ms"] > 0


def installed(folder, monkeypatch, name, source):
    """A distribution with one backend, as an installer leaves it."""
    info = folder / "broken-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: broken\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[harness.backends]\n{name} = broken_backend\n")
    (folder / "broken_backend.py").write_text(source)
    monkeypatch.syspath_prepend(str(folder))


@pytest.mark.parametrize("source", ["import nothing_of_this_name", "raise SystemExit(3)", "x ="])
def test_a_broken_backend_is_a_warning_with_its_reason(examined, tmp_path, monkeypatch, source):
    folder = tmp_path / "site"
    folder.mkdir()
    installed(folder, monkeypatch, "broken", source)
    code, lines, _ = examined(first_step=True)
    (line,) = [line for line in lines["backend"] if line.text.startswith("broken: ")]
    assert code == 0 and line.status == WARN
    reason = {"i": "ModuleNotFoundError", "r": "SystemExit: 3", "x": "SyntaxError"}[source[0]]
    assert reason in line.text
    assert [line.status for line in lines["default run"]] == [OK]


def test_a_default_backend_that_breaks_gives_its_exit_code(examined, tmp_path, monkeypatch):
    """Two distributions that both declare `numpy`: none is taken."""
    folder = tmp_path / "site"
    folder.mkdir()
    installed(folder, monkeypatch, "numpy", "")
    code, lines, _ = examined(first_step=True)
    assert code == PluginError.exit_code
    assert [line.status for line in lines["default run"]] == [MISSING]
    assert "plugin-ambiguous" in lines["default run"][0].text


def test_a_pinned_kernel_is_measured_against_the_librarys_choice(examined, monkeypatch):
    slow = Speed(2, 50e9, "Haswell", 26e9, unset=90e9, kernels_unset="SkylakeX")
    monkeypatch.setenv("OPENBLAS_CORETYPE", "Haswell")
    _, lines, measured = examined(slow)
    line = lines["matmul"][0]
    assert line.status == WARN and measured["coretype_cost"] == 1.8
    assert "90 GFLOP/s without OPENBLAS_CORETYPE, kernels SkylakeX: 1.80 times as fast" in line.text
    assert "blas_kernel=library" in line.do
    assert blas_speed.cached_cost() == 1.8, "kept, for the headers of later runs"


def test_threads_that_bring_nothing_are_a_warning(examined):
    _, lines, _ = examined(Speed(2, 50e9, "Haswell", one_thread=48e9))
    assert [line.status for line in lines["matmul"]] == [OK, WARN]


def test_variables_that_contradict_each_other_are_told(examined, monkeypatch):
    monkeypatch.setattr("harness.machine.threads.cores_allowed", lambda: 4)
    monkeypatch.setenv("OMP_NUM_THREADS", "4")
    monkeypatch.setenv("OPENBLAS_NUM_THREADS", "2")
    _, lines, _ = examined()
    (line,) = lines["threads"]
    assert line.status == WARN and "contradict" in line.text
    assert "OMP_NUM_THREADS=4, OPENBLAS_NUM_THREADS=2" in line.text and "threads=4" in line.do


def test_a_missing_package_gives_the_exit_code_and_its_name(examined, monkeypatch):
    monkeypatch.setattr(
        software.metadata,
        "requires",
        lambda name: ["pluggy>=1", "not-there>=2", "torch; extra == 'x'"],
    )
    code, lines, _ = examined()
    assert code == ResourceError.exit_code
    (line,) = lines["packages"]
    assert (line.status, line.do) == (MISSING, "pip install not-there")


def test_a_topic_that_cannot_be_found_out_hides_no_other(examined, monkeypatch):
    def fail():
        raise RuntimeError("no such thing")
        yield

    monkeypatch.setattr(machine, "memory", fail)
    code, lines, _ = examined()
    assert code == 0
    assert lines["memory"][0].status == WARN and "no such thing" in lines["memory"][0].text
    assert "peaks" in lines
    monkeypatch.setattr(software, "default_run", lambda measured: fail())
    assert examined(first_step=True)[0] == examination.UNFORESEEN, (
        "what the default run needs may not be unknown"
    )


def test_a_folder_that_cannot_be_written_to_gives_the_exit_code(examined, monkeypatch):
    def refuse(**where):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(machine.tempfile, "TemporaryFile", refuse)
    code, lines, _ = examined()
    assert code == ResourceError.exit_code
    assert lines["runs folder"][0].do == "runs_dir=FOLDER"


def test_processes_that_crash_while_measuring_are_told(examined, monkeypatch):
    def crash(threads):
        raise OSError("the measuring process ended with code -4")

    monkeypatch.setattr(blas_speed, "measure", crash)
    lines = list(examination.examine(Measured()))
    (line,) = [line for line in lines if line.topic == "matmul"]
    assert line.status == WARN and "code -4" in line.text
