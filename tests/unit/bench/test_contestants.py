"""The processes of a contest: what is asked of them, how they end, what they cost while they wait."""

import os
import stat
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import psutil
import pytest

from harness.bench.contest.contestant import WORKER, Child
from harness.bench.contest.peers import llmc
from harness.bench.contest.worker import held_bytes, peak_bytes
from harness.config.command_line import compose
from harness.config.config import model_of, trainer_settings
from harness.errors import ConfigError, ResourceError
from harness.machine.child import how_it_ended
from harness.models.gpt2 import GPT2
from harness.models.lora import Lora
from harness.training.optimizer import OptimizerSettings

FAKE_PEER = Path(__file__).with_name("fake_peer.py")
FAKE_LLMC = Path(__file__).with_name("fake_llmc.py")
linux = pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="memory is read in /proc")


@pytest.fixture
def peer():
    made = []

    def make(mode="", **spec):
        spec = {"mode": mode, **spec}
        made.append(Child("fake", sys.executable, str(FAKE_PEER), spec, os.environ))
        return made[-1]

    yield make
    for one in made:
        one.end()


def test_a_child_takes_the_steps_it_is_told_to_and_ends_when_it_is_let_go(peer):
    one = peer()
    assert one.build() == ""
    assert len(one.run(2)) == 2
    assert len(one.run(3)) == 3
    assert one.losses == [5.0] * 5
    assert one.what == "a fake"
    assert all(s >= 0.001 for s in one.run(1))
    pid = one.pid
    one.end()
    assert not psutil.pid_exists(pid)


def test_one_that_cannot_take_part_says_why(peer):
    assert peer("absent").build() == "it is Sunday"


def test_one_that_dies_is_an_error_with_its_last_words(peer):
    one = peer("killed")
    one.build()
    one.run(2)
    with pytest.raises(ResourceError, match="fake gave up in step 3") as died:
        one.run(1)
    assert died.value.slug == "bench-contestant-died"
    assert died.value.facts["found"] == "signal SIGKILL"
    assert died.value.facts["it said"].endswith("the last words")


def test_one_that_raises_is_an_error_with_what_it_raised(peer):
    one = peer("raises")
    one.build()
    with pytest.raises(ResourceError) as failed:
        one.run(1)
    assert failed.value.facts["found"] == "RuntimeError: no kernel for that"


def test_a_python_that_is_not_there_is_an_error():
    one = Child("torch", "/nowhere/python", str(FAKE_PEER), {"mode": ""}, os.environ)
    with pytest.raises(ResourceError, match="gave up before it began"):
        one.build()
    one.end()


@linux
def test_the_memory_of_the_model_is_told_from_that_of_the_process(peer):
    one = peer(bytes=64 << 20)
    one.build()
    one.run(1)
    assert 63 << 20 <= one.peak() - one.before < 70 << 20  # the kernel counts in batches
    assert 0 < held_bytes() <= peak_bytes()


def test_one_that_waits_takes_no_processor_time_and_one_that_does_is_seen(peer):
    quiet, loud = peer(), peer("wasteful")
    before = {}
    for one in (quiet, loud):
        one.build()
        one.run(2)
        time.sleep(0.1)
        before[one] = one.processor_s()
    # On a busy machine the loud one waits for its turn: it is given half a minute.
    end = time.monotonic() + 30
    while (taken := loud.processor_s() - before[loud]) <= 0.1 and time.monotonic() < end:
        time.sleep(0.1)
    assert taken > 0.1
    assert quiet.processor_s() - before[quiet] < 0.02


def test_the_worker_needs_the_standard_library_alone():
    code = (
        f"import runpy, sys; runpy.run_path({str(WORKER)!r}, run_name='worker');"
        "print([name for name in ('numpy', 'harness', 'pluggy', 'torch') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize(("code", "words"), [(-9, "signal SIGKILL"), (3, "exit code 3")])
def test_a_return_code_is_told_in_words(code, words):
    assert how_it_ended(code) == words


# -- llm.c ----------------------------------------------------------------------------------------


@pytest.fixture
def trainer_of_llmc(tmp_path, monkeypatch):
    """A program that behaves like llm.c's, and the contestant that runs it."""
    program = tmp_path / "train_gpt2"
    program.write_text(f'#!/bin/sh\nexec "{sys.executable}" "{FAKE_LLMC}"\n')
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    weights = tmp_path / "weights.bin"
    weights.write_bytes(bytes(2048))
    tokens = np.arange(llmc.TOKENS, dtype=np.int32) % 250
    one = llmc.Llmc(program, weights, tokens, tmp_path / "llmc", 1)
    yield one
    one.end()


def test_llmc_is_stopped_between_its_turns_and_its_steps_are_timed_without_the_pause(
    trainer_of_llmc,
):
    one = trainer_of_llmc
    one.build()
    assert psutil.Process(one.pid).status() == psutil.STATUS_STOPPED
    seconds = []
    for _ in range(4):
        time.sleep(0.5)
        seconds += one.run(1)
        assert psutil.Process(one.pid).status() == psutil.STATUS_STOPPED
    assert all(0.015 < s < 0.4 for s in seconds)  # 20 ms each; longer where the machine is busy
    assert np.diff(one.losses).tolist() == [1.0] * (len(one.losses) - 1)


def test_llmc_is_started_again_before_it_writes_text(trainer_of_llmc):
    one = trainer_of_llmc
    one.build()
    assert len(one.run(100)) == llmc.STEPS
    first = one.pid
    assert len(one.run(2)) >= 2
    assert one.pid != first and not psutil.pid_exists(first)


def test_an_llmc_that_dies_is_an_error_with_its_last_line(trainer_of_llmc, monkeypatch):
    monkeypatch.setenv("FAKE_LLMC", "dies")
    trainer_of_llmc.build()
    with pytest.raises(ResourceError, match=r"llm\.c gave up after 7 steps") as died:
        trainer_of_llmc.run(20)
    assert "exit code 3, after: Error: must forward" in died.value.facts["found"]


def test_the_order_of_llmcs_batches_is_that_of_its_generator():
    # On batches in this order llm.c's own trainer has the losses that ours has, to 2e-7.
    order = [0, 6, 1, 14, 18, 3, 9, 11, 4, 8, 19, 15, 7, 17, 5, 10, 12, 16, 13, 2]
    assert llmc.order().tolist() == order
    tokens = np.repeat(np.arange(llmc.STEPS), llmc.B * llmc.T)
    made = llmc.batches(np.append(tokens, 0), 10)
    assert made.shape == (10, 2, llmc.B, llmc.T)
    assert made[:, 0, 0, 0].tolist() == order[:10]
    assert (made[:, 1].reshape(10, -1)[:, :-1] == made[:, 0].reshape(10, -1)[:, 1:]).all()


@pytest.fixture(scope="module")
def llmcs_work():
    config = compose(["experiment=llmc_cpu", "model=tiny"])
    return trainer_settings(config, model_of(config, 256))


def test_the_preset_is_the_work_of_llmcs_trainer(llmcs_work):
    assert llmc.why_not_llmc(llmcs_work, 1e-4, llmc.TOKENS) == ""
    assert "5,121 tokens" in llmc.why_not_llmc(llmcs_work, 1e-4, 5120)
    assert "optimizer.lr=0.0001" in llmc.why_not_llmc(llmcs_work, 1e-3, llmc.TOKENS)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"batch_size": 2}, "batch_size=4"),
        ({"sequence_length": 32}, "sequence_length=64"),
        ({"gradient_accumulation": 2}, "gradient_accumulation=1"),
        ({"clip_norm": 1.0}, "clip_norm=null"),
        ({"loss_gradient": "sum"}, "loss_gradient=mean"),
        ({"optimizer": OptimizerSettings()}, "optimizer.beta2=0.999, optimizer.weight_decay=0.0"),
        ({"model": GPT2(1, 1, 8, 64, 256, activation="residual")}, "plain GPT-2"),
        ({"adapter": Lora(4, 8.0, ("q",))}, "no adapters"),
    ],
)
def test_llmc_is_not_asked_for_work_that_it_does_not_do(llmcs_work, change, reason):
    assert reason in llmc.why_not_llmc(replace(llmcs_work, **change), 1e-4, llmc.TOKENS)


def test_a_trainer_of_llmcs_that_is_not_there_is_refused():
    from harness.bench.contest.contest import Contest
    from harness.bench.contest.entrants import Entrants

    with pytest.raises(ConfigError, match="is not a program"):
        Contest(Entrants({"numpy": ["experiment=llmc_cpu", "model=micro"]}, llmc=Path("nowhere")))
