"""A signal ends a run after its step, with a checkpoint and an exit code of its own."""

import signal
import subprocess
import sys
from pathlib import Path

import pytest

CODES = {signal.SIGINT: 130, signal.SIGTERM: 143, signal.SIGUSR2: 75}


def sending(number: signal.Signals, op: str, call: int, times: int = 1) -> str:
    """A wrapper that sends this process a signal within the n-th call of an op."""
    Path("sending.py").write_text(
        "import os\n"
        "from harness import hookimpl\n"
        "calls = 0\n\n\n"
        "@hookimpl\n"
        "def wrap_op(op, backend, call):\n"
        "    def counted(*arguments):\n"
        "        global calls\n"
        "        calls += 1\n"
        f"        if calls == {call}:\n"
        f"            for _ in range({times}):\n"
        f"                os.kill(os.getpid(), {number.value})\n"
        "        call(*arguments)\n"
        f"    return counted if op == '{op}' else None\n"
    )
    return "wrappers=[./sending.py]"


@pytest.mark.parametrize("number", CODES)
def test_the_step_is_finished_and_a_checkpoint_written(train, number):
    outcome = train("steps=9", sending(number, "attention_forward", call=4))
    assert outcome.code == CODES[number]
    assert [record["step"] for record in outcome.records()] == [1, 2, 3, 4]
    assert f"stopped by {number.name} after step 4; resume=auto continues from here" in outcome.out
    assert "stopping after this step" in outcome.err
    assert outcome.weights(4)
    assert outcome.records("validation") == []


def test_a_signal_before_a_validation_leaves_it_out(train):
    outcome = train("steps=9", "validate_every=4", sending(signal.SIGTERM, "squared_norm", call=4))
    assert outcome.code == 143
    assert outcome.records("validation") == [] and outcome.weights(4)


def test_a_signal_within_the_last_validation_ends_that_and_is_made_good_by_resuming(train):
    # squared_norm is not called in validation; the first two steps call attention_forward twice.
    stop = sending(signal.SIGINT, "attention_forward", call=3)
    outcome = train("steps=2", "baselines=true", stop)
    assert outcome.code == 130
    assert outcome.records("validation") == [] == outcome.records("baselines")
    assert outcome.weights(2)
    resumed = train("steps=2", "baselines=true", "resume=auto")
    assert resumed.code == 0
    assert len(resumed.records("validation")) == len(resumed.records("baselines")) == 1


def test_a_signal_within_a_sample_ends_that(train):
    # The first call takes the sampler's memory before training; the second begins the sample.
    stop = sending(signal.SIGINT, "attention_decode", call=4)
    outcome = train("steps=3", "sample.every=2", "sample.length=10000", stop)
    assert outcome.code == 130
    assert outcome.records("sample") == [] and outcome.weights(2)


def test_a_second_interrupt_quits_at_once(train):
    outcome = train("steps=9", sending(signal.SIGINT, "attention_forward", call=4, times=2))
    assert outcome.code == 130
    assert "interrupted; the last checkpoint stands" in outcome.err
    assert [record["step"] for record in outcome.records()] == [1, 2, 3]
    assert not (outcome.folder / "checkpoints").exists()


def test_a_job_that_its_scheduler_warned_goes_on_when_it_is_queued_again(workplace, small):
    command = [sys.executable, "-m", "harness.train", *small, "steps=400", "resume=auto"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        for line in process.stdout:
            if line.startswith("step 3/"):
                process.send_signal(signal.SIGUSR2)
    assert process.returncode == 75
    again = subprocess.run(command, capture_output=True, text=True, timeout=100)
    assert again.returncode == 0, again.stderr
    assert "resumed   after step " in again.stdout
    assert len(list(Path("runs").iterdir())) == 1
