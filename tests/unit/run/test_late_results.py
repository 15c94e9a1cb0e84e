"""A step is decided on the device; its loss is read after the next one was begun, to the same effect."""

import json
from pathlib import Path

import numpy as np
import pytest

from backends.cupy_cuda._machine import machine
from harness.config import command_line
from harness.errors import ConfigError, NumericsError
from harness.run.run import Run

LATE = str(Path(__file__).parents[1] / "late_device.py")
AT_ONCE = str(Path(__file__).parents[1] / "toy_device.py")
CLIPPED = {"optimizer": {"name": "adamw"}, "clip_norm": 0.5}
LR = 0.02
STEPS = 5


@pytest.fixture
def batches():
    """Batches of six sequences of 8 tokens, none of which is 39; `[-1]` has one that is."""
    rng = np.random.default_rng(0)
    found = [tuple(rng.integers(0, 39, (2, 6, 8), dtype=np.int32)) for _ in range(STEPS + 1)]
    found[-1][0][4, 3] = 39
    return found


def steps_of(trainer, batches):
    """The results of all steps, each read after as many more were begun as the trainer allows."""
    results = []
    for begun, batch in enumerate(batches, start=1):
        trainer.begin(*batch, LR / begun)
        if begun > trainer.results_late:
            results.append(trainer.result())
    return results + [trainer.result() for _ in range(trainer.results_late)]


def same_state(first, second):
    first, second = first.state(), second.state()
    return all(
        np.array_equal(array, second[group][name])
        for group, tensors in first.items()
        for name, array in tensors.items()
    )


def test_results_are_late_where_the_device_reads_late_and_no_step_may_be_left_out(make_trainer):
    assert make_trainer(6, LATE).results_late == 1
    assert make_trainer(6, LATE, clip_norm=1.0, on_nonfinite="skip").results_late == 0
    assert make_trainer(6, AT_ONCE).results_late == 0
    assert make_trainer(6).results_late == 0


@pytest.mark.parametrize("micro", [1, 3])
def test_late_results_are_those_that_are_read_at_once(make_trainer, batches, micro):
    late, at_once = (
        make_trainer(6 // micro, backend, gradient_accumulation=micro, **CLIPPED)
        for backend in (LATE, AT_ONCE)
    )
    expected = [at_once.step(*batch, LR / n) for n, batch in enumerate(batches[:-1], start=1)]
    assert steps_of(late, batches[:-1]) == expected
    assert any(result.grad_norm > 0.5 for result in expected)
    assert same_state(late, at_once)


def test_the_loss_is_waited_for_after_the_next_step_was_asked_for(make_trainer, batches):
    trainer = make_trainer(6, LATE, **CLIPPED)
    asked = trainer.plan.home.module.asked
    asked.clear()
    trainer.begin(*batches[0], LR)
    trainer.begin(*batches[1], LR)
    assert asked == ["begin_read"] * 4  # a loss and a norm of each, and nothing that waits
    trainer.result()
    assert asked[4:] == ["wait", "wait"]


@pytest.mark.parametrize("micro", [1, 3])
def test_a_step_on_the_emulated_gpu_makes_the_host_wait_for_nothing(make_trainer, batches, micro):
    trainer = make_trainer(6 // micro, "cupy", gradient_accumulation=micro, **CLIPPED)
    before = machine().waits
    trainer.begin(*batches[0], LR)
    for batch in batches[1:]:
        trainer.begin(*batch, LR)
        trainer.result()
    assert machine().waits == before


def test_a_step_that_was_not_finite_is_named_when_the_next_was_begun_already(make_trainer, batches):
    trainer, stopped = make_trainer(6, LATE, **CLIPPED), make_trainer(6, LATE, **CLIPPED)
    for batch in batches[:2]:
        stopped.step(*batch, LR)
        trainer.step(*batch, LR)
    trainer.begin(*batches[-1], LR)
    trainer.begin(*batches[2], LR)
    with pytest.raises(NumericsError, match="step 3 is not finite: loss nan") as caught:
        trainer.result()
    # With the batch of step 3: that of step 4 would show nothing.
    assert "embedding_forward of" in str(caught.value)
    assert trainer.optimizer.t == 2
    assert same_state(trainer, stopped)


def test_after_it_was_noticed_training_can_go_on(make_trainer, batches):
    trainer, other = make_trainer(6, LATE, **CLIPPED), make_trainer(6, LATE, **CLIPPED)
    with pytest.raises(NumericsError):
        trainer.step(*batches[-1], LR)
    assert trainer.step(*batches[0], LR) == other.step(*batches[0], LR)
    assert same_state(trainer, other)


def test_a_step_that_is_skipped_is_as_if_it_had_not_been(make_trainer, batches):
    skip = {**CLIPPED, "on_nonfinite": "skip"}
    trainer, other = make_trainer(6, LATE, **skip), make_trainer(6, LATE, **skip)
    order = [0, 1, -1, 2, -1, -1, 3]  # on both sides of the capture, too
    skipped = [trainer.step(*batches[i], LR).skipped for i in order]
    assert skipped == [i == -1 for i in order]
    for i in (0, 1, 2, 3):
        other.step(*batches[i], LR)
    assert trainer.optimizer.t == 4 and same_state(trainer, other)


def test_no_clipping_is_no_hindrance_to_stopping(make_trainer, batches):
    trainer = make_trainer(6, LATE)
    trainer.begin(*batches[-1], LR)
    before = {n: a.copy() for n, a in trainer.parameters.to_host().items()}
    trainer.begin(*batches[0], LR)
    with pytest.raises(NumericsError):
        trainer.result()
    after = trainer.state()["model"]
    assert all(np.array_equal(before[name], after[name]) for name in before)


def test_what_decides_on_an_update_is_where_it_is_made(make_trainer):
    with pytest.raises(ConfigError, match="guard of reference is on host") as caught:
        make_trainer(6, LATE, chosen={"guard": "reference"})
    assert caught.value.slug == "update-on-two-devices"


def run_in(folder, backend):
    """The records of a run's metrics, and its output's lines, without what a clock says."""
    text = folder / "text.txt"
    text.write_text("a small text that is learned by heart, again and again. " * 30)
    (config,) = command_line.check(
        f"backend={backend} model=micro steps=7 batch_size=2 sequence_length=8 data=text "
        f"data.path={text} runs_dir={folder / 'runs'} validate_every=3 checkpoint_every=2 "
        "sample.every=0".split()
    )
    run = Run(config)
    code = run.execute()
    lines = (run.folder / "metrics.jsonl").read_text().splitlines()
    records = [json.loads(line) for line in lines]
    clocks = ("step_ms", "tokens_per_s", "mfu", "eta_s", "time", "seconds")
    kept = [{k: v for k, v in r.items() if k not in clocks} for r in records]
    return code, [r for r in kept if r["kind"] != "start"], run


def test_a_run_writes_the_same_lines_however_late_it_reads(tmp_path, capfd):
    (tmp_path / "late").mkdir()
    (tmp_path / "at_once").mkdir()
    code, late, run = run_in(tmp_path / "late", LATE)
    asked = run.trainer.plan.home.module.asked
    assert code == 0 and run.trainer.results_late == 1
    _, at_once, other = run_in(tmp_path / "at_once", AT_ONCE)
    assert other.trainer.results_late == 0
    assert late == at_once
    assert [r["step"] for r in late if r["kind"] == "step"] == list(range(1, 8))
    assert [r["step"] for r in late if r["kind"] == "validation"] == [3, 6, 7]
    # Step 5 is followed by nothing that needs it: 6 was begun before its result was waited for.
    assert "begin_read begin_read begin_read begin_read wait wait" in " ".join(asked)
