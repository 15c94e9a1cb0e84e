"""A run that was killed, stopped or finished goes on from its last checkpoint, bit for bit."""

import json
import random
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from harness.run.folder import locked

CHECKPOINT = 4


def test_a_run_that_is_killed_at_random_moments_ends_as_if_it_was_not(train, small, workplace):
    settings = [
        *small,
        *("name=whole", "steps=60", "checkpoint_every=4"),
        *("sample.every=25", "sample.length=20"),
    ]
    whole = train(*settings, small=False)
    (workplace / "killed").mkdir()
    shutil.copy("text.txt", "killed")
    rng = random.Random()
    seed = rng.randrange(10**6)
    rng.seed(seed)
    kills = 0
    for _ in range(20):
        code = killed_after(rng.randrange(10, 40), settings, workplace / "killed")
        if code == 0:
            break
        assert code == -signal.SIGKILL
        kills += 1
    assert code == 0 and kills >= 1, f"seed {seed}"
    (folder,) = (workplace / "killed" / "runs").glob("whole-*")
    assert _losses(folder) == _losses(whole.folder), f"seed {seed}"
    assert _samples(folder) == _samples(whole.folder)
    assert _sha256(folder, 60) == _sha256(whole.folder, 60)


def killed_after(lines: int, settings: list[str], folder: Path) -> int:
    """Start or resume a run, and kill it as soon as it has printed so many steps."""
    with subprocess.Popen(
        [sys.executable, "-m", "harness.train", *settings, "resume=auto"],
        cwd=folder,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        for line in process.stdout:
            lines -= line.startswith("step ")
            if lines == 0:
                process.kill()
    return process.returncode


@pytest.mark.parametrize(
    "settings",
    [
        "optimizer=adamw",
        "optimizer=sgd optimizer.momentum=0.9",
        "optimizer=sgd optimizer.momentum=0",
        "gradient_accumulation=3 schedule=linear",
        "backend=reference precision=bf16",
        "precision=bf16 rounding=stochastic validate_every=2",
        "precision=bf16 rounding=stochastic optimizer=sgd",
        "data.tokenizer=char validate_every=2 sample.every=2 sample.length=5",
        "clip_norm=null optimizer.lr=1e-4",
    ],
)
def test_it_goes_on_bit_for_bit(train, settings):
    common = [*settings.split(), "steps=8", "schedule.warmup_steps=3"]
    whole = train(*common, "name=whole").folder
    stopped = train(*common, "name=stopped", stopping_wrapper(3), "resume=auto")
    assert stopped.code == 75
    resumed = train(*common, "name=stopped", "resume=auto")
    (folder,) = (f for f in resumed.folders if f != whole)
    assert resumed.code == 0 and "resumed   after step 3" in resumed.out
    assert _losses(folder) == _losses(whole)
    assert _sha256(folder, 8) == _sha256(whole, 8)


def stopping_wrapper(step: int) -> str:
    """A wrapper that has the run stopped during a step; it needs no gradient norm to count by."""
    path = Path("stop.py")
    path.write_text(
        "import os, signal\n"
        "from harness import hookimpl\n"
        "calls = 0\n\n\n"
        "@hookimpl\n"
        "def wrap_op(op, backend, call):\n"
        "    def counted(*arguments):\n"
        "        global calls\n"
        "        calls += 1\n"
        f"        if calls == 2 * {step}:\n"  # one call for decayed parameters, one for others
        "            os.kill(os.getpid(), signal.SIGUSR2)\n"
        "        call(*arguments)\n"
        "    return counted if op in ('adamw', 'adamw_master', 'sgd') else None\n"
    )
    return f"wrappers=[./{path}]"


def test_steps_that_a_crash_lost_are_logged_once(train, faulty):
    """Killed after step 5, with a checkpoint of step 4."""
    file = faulty("squared_norm", "raise ValueError", first=6)
    crashed = train("steps=8", "checkpoint_every=4", f"ops.squared_norm={file}")
    assert crashed.code == 5 and [r["step"] for r in crashed.records()] == [1, 2, 3, 4, 5]
    resumed = train("steps=8", "checkpoint_every=4", "resume=auto")
    assert [r["step"] for r in resumed.records()] == list(range(1, 9))
    assert "resumed   after step 4" in resumed.out


def test_with_nothing_to_resume_a_run_starts(train):
    outcome = train("resume=auto")
    assert outcome.code == 0 and "resumed" not in outcome.out


def test_a_run_that_was_killed_before_its_first_checkpoint_starts_anew(train, workplace):
    first = train("steps=1")
    shutil.rmtree(first.folder / "checkpoints")
    outcome = train("resume=auto", "steps=1")
    assert outcome.code == 0 and len(outcome.folders) == 2


def test_a_finished_run_goes_on_with_more_steps(train):
    train("steps=3", "schedule=constant")
    longer = train("steps=6", "schedule=constant", "resume=auto")
    whole = train("steps=6", "schedule=constant", "name=whole")
    assert [r["step"] for r in longer.records()] == [1, 2, 3, 4, 5, 6]
    resumed, uninterrupted = whole.folders
    assert _losses(resumed) == _losses(uninterrupted)
    assert _sha256(resumed, 6) == _sha256(uninterrupted, 6)


def test_a_finished_run_is_left_as_it_is(train):
    weights = train().weights(3)
    again = train("resume=auto")
    assert again.code == 0
    assert [r["step"] for r in again.records()] == [1, 2, 3]
    assert again.weights(3) == weights


def test_a_folder_may_be_named(train):
    first = train("steps=2").folder
    outcome = train("steps=4", f"resume={first}", "name=other")
    assert outcome.code == 0 and outcome.folder == first
    assert "resumed   after step 2" in outcome.out


@pytest.mark.parametrize(
    ("change", "differs"),
    [
        ("model.channels=64", "model.channels"),
        ("optimizer.beta2=0.5", "optimizer.beta2"),
        ("seed=7", "seed"),
        ("batch_size=3", "sequences per step"),
        ("sequence_length=8", "sequence_length"),
        ("data.validation_fraction=0.2", "data sha256"),
    ],
)
def test_another_run_is_not_continued(train, change, differs):
    before = train("steps=1")
    lines = (before.folder / "metrics.jsonl").read_bytes()
    outcome = train("steps=2", "resume=auto", change)
    assert outcome.code == CHECKPOINT
    assert outcome.err.startswith(
        f"error[resume-misfit] the run cannot go on from this checkpoint: {differs} differs"
    )
    assert outcome.out == "" and (before.folder / "metrics.jsonl").read_bytes() == lines


def test_the_same_step_in_smaller_parts_goes_on(train):
    train("steps=1", "batch_size=4")
    outcome = train("steps=2", "batch_size=2", "gradient_accumulation=2", "resume=auto")
    assert outcome.code == 0


def test_a_damaged_checkpoint_is_passed_over_with_its_reason(train):
    first = train("steps=4", "checkpoint_every=2", "keep_checkpoints=3")
    losses = first.losses
    newest = first.folder / "checkpoints" / "step-00000004" / "model.safetensors"
    content = bytearray(newest.read_bytes())
    content[-1] ^= 1
    newest.write_bytes(content)
    outcome = train("steps=4", "checkpoint_every=2", "keep_checkpoints=3", "resume=auto")
    assert outcome.code == 0
    assert "ignored   " in outcome.out and "model.safetensors" in outcome.out
    assert "resumed   after step 2" in outcome.out
    assert outcome.losses == losses


def test_two_processes_do_not_train_one_run(train):
    first = train("steps=2").folder
    with locked(first):
        outcome = train("steps=4", "resume=auto")
    assert outcome.code == CHECKPOINT
    assert outcome.err.startswith("error[run-in-use]")
    assert [r["step"] for r in outcome.records()] == [1, 2]
    assert train("steps=4", "resume=auto").code == 0


def _records(folder: Path, kind: str) -> list[dict]:
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    return [record for record in map(json.loads, lines) if record["kind"] == kind]


def _losses(folder: Path) -> list[str]:
    return [float(record["loss"]).hex() for record in _records(folder, "step")]


def _samples(folder: Path) -> list[str]:
    return [record["text"] for record in _records(folder, "sample")]


def _sha256(folder: Path, step: int) -> dict:
    """The sha256 of every file of a checkpoint: weights and moments."""
    path = folder / "checkpoints" / f"step-{step:08d}" / "manifest.json"
    return json.loads(path.read_text())["files"]
