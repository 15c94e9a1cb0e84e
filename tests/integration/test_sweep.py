"""`-m` runs every combination; a job that fails stops no other."""

import subprocess
import sys
from pathlib import Path

import pytest
from omegaconf import OmegaConf


@pytest.fixture
def sweep(workplace, small):
    def run(*arguments: str) -> subprocess.CompletedProcess:
        command = [sys.executable, "-m", "harness.train", *arguments]
        return subprocess.run(command, capture_output=True, text=True, timeout=100)

    return run


def runs() -> list[dict]:
    """The configuration of each run, in the order they were made."""
    made = sorted(Path("runs").glob("*/run.json"), key=lambda path: path.stat().st_mtime_ns)
    return [OmegaConf.to_container(OmegaConf.load(path.parent / "config.yaml")) for path in made]


def test_a_job_that_fails_stops_no_other(sweep, small):
    done = sweep(*small, "-m", "model.heads=2,3", "backend=numpy,numpi,reference", "steps=1")
    assert done.stdout.splitlines()[-1] == "6 runs, 4 failed"
    assert [(c["model"]["heads"], c["backend"]) for c in runs()] == [(2, "numpy"), (2, "reference")]
    assert done.stderr.count("error[unknown-backend]") == 1
    assert done.stderr.count("error[heads-do-not-divide]") == 3
    assert "Traceback" not in done.stderr
    assert done.returncode == 2  # of the first that failed: numpy with 3 heads


def test_settings_may_stand_before_and_behind_the_flag(sweep, small):
    done = sweep("seed=1,2", "-m", *small, "steps=1")
    assert done.returncode == 0, done.stderr
    assert [config["seed"] for config in runs()] == [1, 2]
    assert "run 2 of 2: seed=2" in done.stdout


def test_a_value_that_no_job_could_take_is_refused_before_the_first(sweep, small):
    done = sweep(*small, "-m", "steps=1,abc")
    assert done.returncode == 2
    assert done.stderr.startswith("error[config-misfit]") and done.stdout == ""
    assert not Path("runs").exists()


def test_a_reader_that_has_seen_enough_ends_no_job(sweep, small, workplace):
    command = [sys.executable, "-m", "harness.train", *small, "-m", "seed=1,2", "steps=1"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        process.stdout.readline()
        process.stdout.close()
        errors = process.stderr.read().decode()
    assert process.returncode == 0, errors
    assert errors == "" and len(runs()) == 2


def test_a_folder_that_cannot_be_written_to_is_an_error_before_the_first(sweep, small, workplace):
    (workplace / "file").touch()
    done = sweep(*small, "-m", "seed=1,2", "runs_dir=file/runs")
    assert done.returncode in (2, 7)
    assert done.stderr.startswith("error[") and "Traceback" not in done.stderr


def test_a_signal_ends_the_sweep_after_its_job(sweep, small, workplace):
    (workplace / "stop.py").write_text(
        "import os, signal\n"
        "from harness import hookimpl\n\n\n"
        "@hookimpl\n"
        "def wrap_op(op, backend, call):\n"
        "    def stop(*arguments):\n"
        "        os.kill(os.getpid(), signal.SIGTERM)\n"
        "        call(*arguments)\n"
        "    return stop if op == 'squared_norm' else None\n"
    )
    done = sweep(*small, "-m", "seed=1,2,3", "wrappers=[./stop.py]")
    assert done.returncode == 143
    assert "stopped by SIGTERM after step 1" in done.stdout
    assert len(runs()) == 1
