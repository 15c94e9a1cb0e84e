"""A run says what it computes with, in header and record, and obeys `threads` and `blas_kernel`."""

import json
import os
import subprocess
import sys

import numpy  # noqa: F401 - its BLAS is what is looked at
import pytest
import threadpoolctl

from harness import cli, generate
from harness import train as trainer
from harness.errors import ConfigError
from harness.generation.settings import read_arguments
from harness.machine.threads import THREAD_VARIABLES, cores_allowed

PINNED = {"OPENBLAS_CORETYPE": "Prescott"}
"""Kernels that every x86 processor has, and that are slower on every one of the last ten years."""

is_openblas_of_x86 = pytest.mark.skipif(
    not any(
        info["internal_api"] == "openblas" and os.uname().machine == "x86_64"
        for info in threadpoolctl.threadpool_info()
    ),
    reason="NumPy's BLAS is not OpenBLAS for x86, so OPENBLAS_CORETYPE pins nothing",
)


@pytest.fixture
def command(workplace):
    """`python -m MODULE ...` as a process of its own; environment: of variables that matter, these."""

    def run(module: str, *arguments: str, **environment: str) -> subprocess.CompletedProcess:
        known = (*THREAD_VARIABLES, "OPENBLAS_CORETYPE", "HARNESS_STARTED_AGAIN_WITHOUT")
        clean = {name: value for name, value in os.environ.items() if name not in known}
        return subprocess.run(
            [sys.executable, "-m", module, *arguments],
            capture_output=True,
            text=True,
            timeout=100,
            env={**clean, **environment},
        )

    return run


def header(out: str, label: str) -> list[str]:
    return [line[10:] for line in out.splitlines() if line.startswith(f"{label:<10}")]


# -- threads --------------------------------------------------------------------------------------


def test_the_header_and_the_record_say_what_the_run_computed_with(train):
    outcome = train("threads=1", "ops.gelu=reference")
    assert header(outcome.out, "threads") == [f"1 of {_cores()}, by threads=1"]
    libraries = header(outcome.out, "library")
    assert [line.partition(": ")[0] for line in libraries] == ["numpy", "reference"]
    kernels = [i["architecture"] for i in threadpoolctl.threadpool_info() if "architecture" in i]
    assert not kernels or any(f"kernels {kernel}, 1 thread" in libraries[0] for kernel in kernels)
    recorded = json.loads((outcome.folder / "resolved.json").read_text())["computed_with"]
    assert (recorded["threads"], recorded["cores"]) == (1, cores_allowed())
    assert [f"{name}: {text}" for name, text in recorded["libraries"].items()] == libraries
    (start,) = outcome.records("start")
    assert {key: start[key] for key in recorded} == recorded


def test_the_libraries_compute_with_that_many_while_it_runs_and_not_after_it(
    train, workplace, monkeypatch
):
    """A wrapper looks at them from inside the first op."""
    (workplace / "look.py").write_text(
        "import threadpoolctl\n"
        "from harness import hookimpl\n\n\n"
        "@hookimpl\n"
        "def wrap_op(op, backend, call):\n"
        "    def look(*arguments):\n"
        "        print('seen', *(i['num_threads'] for i in threadpoolctl.threadpool_info()))\n"
        "        call(*arguments)\n"
        "    return look if op == 'squared_norm' else None\n"
    )
    with threadpoolctl.threadpool_limits(2):
        outcome = train("threads=1", "wrappers=[./look.py]", "steps=1")
        seen = [line.split()[1:] for line in outcome.out.splitlines() if line.startswith("seen")]
        assert seen and set(seen[0]) == {"1"}
        assert {i["num_threads"] for i in threadpoolctl.threadpool_info()} == {2}


def test_a_run_that_goes_on_elsewhere_says_so_at_each_start(train):
    train("steps=2", "threads=1")
    outcome = train("steps=4", "threads=2", "resume=auto")
    starts = outcome.records("start")
    assert [(start["step"], start["threads"]) for start in starts] == [(0, 1), (2, 2)]


def test_more_threads_than_cores_are_a_warning(train):
    count = cores_allowed() + 1
    outcome = train(f"threads={count}", "steps=1")
    assert outcome.code == 0
    assert header(outcome.out, "warning")[0].startswith(f"{count} threads on {_cores()}")


@pytest.mark.parametrize(
    ("override", "slug"),
    [
        ("threads=0", "value-too-small"),
        ("threads=-1", "value-too-small"),
        ("threads=1025", "value-too-large"),
        ("threads=abc", "config-misfit"),
        ("threads=1.5", "config-misfit"),
        ("blas_kernel=fast", "unknown-value"),
    ],
)
def test_what_is_no_number_of_threads_and_no_choice_is_refused(train, override, slug):
    outcome = train(override)
    assert (outcome.code, outcome.folders) == (2, [])
    assert outcome.err.startswith(f"error[{slug}]") and override.partition("=")[2] in outcome.err


def test_a_variable_that_leaves_cores_idle_is_followed_and_warned_of(train, monkeypatch):
    monkeypatch.setattr("harness.machine.threads.cores_allowed", lambda: 2)
    monkeypatch.setenv("OPENBLAS_NUM_THREADS", "1")
    outcome = train("steps=1")
    assert header(outcome.out, "threads") == ["1 of 2 cores, by OPENBLAS_NUM_THREADS=1"]
    assert header(outcome.out, "warning") == ["OPENBLAS_NUM_THREADS=1 leaves 1 of 2 cores idle"]
    assert "do: threads=2" in outcome.out


def test_generate_takes_threads(train, capfd):
    train()
    asked = ["prompt=The", "length=2", "tokenizer=bytes", "threads=1"]
    assert generate.execute(read_arguments(asked)[1]) == 0
    assert f"threads    1 of {_cores()}, by threads=1" in capfd.readouterr().err
    with pytest.raises(ConfigError):
        read_arguments([*asked, "threads=0"])


def test_verify_takes_threads(workplace, capfd):
    assert cli.main(["verify", "write", "small"]) == 0
    files = ("small/model.bin", "small/debug_state.bin")
    assert cli.main(["verify", *files, "steps=0", "threads=1", "report=r.json"]) == 0
    assert json.loads((workplace / "r.json").read_text())["threads"] == 1


# -- blas_kernel ----------------------------------------------------------------------------------


@is_openblas_of_x86
def test_a_pinned_kernel_is_warned_of_and_a_sweep_that_asks_for_it_starts_again_once(
    command, small
):
    pinned = command("harness.train", *small, "steps=1", **PINNED)
    assert pinned.returncode == 0, pinned.stderr
    assert header(pinned.stdout, "warning")[0].startswith("OPENBLAS_CORETYPE=Prescott is set")
    assert "do: blas_kernel=library, or env -u OPENBLAS_CORETYPE" in pinned.stdout
    sweep = ("-m", *small, "steps=1", "seed=1,2", "blas_kernel=library")
    done = command("harness.train", *sweep, **PINNED)
    assert done.returncode == 0, done.stderr
    first, second = header(done.stdout, "library")
    assert first == second != header(pinned.stdout, "library")[0]
    note = "started again without OPENBLAS_CORETYPE=Prescott (blas_kernel=library)"
    assert header(done.stdout, "note") == [note] * 2
    assert header(done.stdout, "warning") == []
    assert done.stdout.count("run 1 of 2") == 1 and "2 runs, 0 failed" in done.stdout


@is_openblas_of_x86
def test_a_variable_that_comes_back_is_told_and_starts_no_loop(command, small, workplace):
    """Something of the user's sets it whenever Python starts."""
    (workplace / "site").mkdir()
    (workplace / "site" / "sitecustomize.py").write_text(
        "import os\n"
        "open('starts.txt', 'a').write('.')\n"
        "os.environ['OPENBLAS_CORETYPE'] = 'Prescott'\n"
    )
    done = command(
        *("harness.train", *small, "steps=1", "blas_kernel=library", "resume=auto"),
        PYTHONPATH=str(workplace / "site"),
    )
    assert done.returncode == 0, done.stderr
    assert (workplace / "starts.txt").read_text() == ".."
    assert "had no effect: something sets it again" in done.stdout


@is_openblas_of_x86
def test_generate_starts_again_too(train, command):
    train()
    asked = ("prompt=The", "length=2", "tokenizer=bytes", "blas_kernel=library")
    done = command("harness.generate", *asked, **PINNED)
    assert done.returncode == 0 and done.stdout.startswith("The"), done.stderr
    assert "note       started again without OPENBLAS_CORETYPE=Prescott" in done.stderr


def test_runs_that_differ_in_it_are_refused_before_the_first(workplace, small, capfd, monkeypatch):
    arguments = ["train.py", "-m", *small, "blas_kernel=environment,library"]
    monkeypatch.setattr(sys, "argv", arguments)
    assert trainer.main() == 2
    found = capfd.readouterr()
    assert found.out == "" and found.err.startswith("error[blas-kernel-swept]")


def test_a_run_inside_another_program_is_not_started_again(train, monkeypatch):
    monkeypatch.setenv("OPENBLAS_CORETYPE", "Haswell")
    outcome = train("steps=1", "blas_kernel=library")
    assert outcome.code == 0
    assert "this process is not one of them" in header(outcome.out, "warning")[-1]


def _cores() -> str:
    count = cores_allowed()
    return f"{count} core{'s' if count > 1 else ''}"
