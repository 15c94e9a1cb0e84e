"""A run trains: the curve it must follow, what it prints, what it leaves, what it does about NaN."""

import json
import re
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from omegaconf import OmegaConf

from harness import cli
from harness.config import command_line
from harness.config.config import model_of, schedule_of, trainer_settings
from harness.data import Sequences
from harness.models.gpt2 import build
from harness.plugins.loading import all_ops
from harness.run.data import load_data
from harness.training.trainer import Trainer

# As OpenAI's checkpoints and llm.clj's micro model count.
PUBLISHED = {
    "micro": 16_480,
    "gpt2_124m": 124_439_808,
    "gpt2_350m": 354_823_168,
    "gpt2_774m": 774_030_080,
    "gpt2_1558m": 1_557_611_200,
}


@pytest.mark.parametrize("preset", PUBLISHED)
def test_a_preset_has_the_published_number_of_parameters(preset):
    model = model_of(command_line.compose([f"model={preset}"]), tokenizer_vocab=1)
    program, _ = build(all_ops(), model, B=1, T=1)
    padding = (model.padded_vocab - model.vocab_size) * model.channels
    assert model.parameters == PUBLISHED[preset]
    assert sum(p.size for p in program.parameters.values()) - padding == PUBLISHED[preset]


def test_a_run_prints_its_number_of_parameters(train):
    assert "model     16,480 parameters: 1 layers" in train("data=counting", "steps=1").out


def test_the_plan_of_a_model_that_does_not_fit_here_is_printed_all_the_same(workplace, capsys):
    command = ["plan", "model=gpt2_1558m", "--totals", "batch_size=1"]
    assert cli.main([*command, "data=counting", "sequence_length=8"]) == 0
    assert "1,557,611,200 parameters" in capsys.readouterr().out


def test_the_micro_model_follows_the_published_curve(train):
    """llm.clj prints 4.60, 4.33 and 4.01 from other initial weights of the same distribution."""
    outcome = train("experiment=micro_gpt2", "backend=numpy", small=False)
    losses = [record["loss"] for record in outcome.records()]
    assert losses == pytest.approx([4.605, 4.33, 4.01], abs=0.05)


@pytest.mark.parametrize("schedule", ["constant", "linear", "cosine"])
@pytest.mark.parametrize(
    "optimizer",
    [
        "optimizer=adamw optimizer.lr=1e-2",
        "optimizer=adam optimizer.lr=1e-2",
        "optimizer=sgd optimizer.lr=0.3 optimizer.momentum=0",
        "optimizer=sgd optimizer.lr=0.1 optimizer.momentum=0.9",
    ],
)
def test_every_optimizer_and_schedule_learns_to_count(train, optimizer, schedule):
    changes = [*optimizer.split(), f"schedule={schedule}", "schedule.warmup_steps=2", "steps=25"]
    losses = [record["loss"] for record in train("data=counting", *changes).records()]
    assert losses[-1] < losses[0] - 0.5


def test_the_learning_rate_of_each_step_is_the_schedules(train):
    changes = ["steps=6", "schedule=cosine", "schedule.warmup_steps=2", "optimizer.lr=0.01"]
    rates = [record["learning_rate"] for record in train(*changes).records()]
    schedule = schedule_of(command_line.compose(changes))
    assert rates == [schedule(step) for step in range(1, 7)]
    assert rates[:2] == [0.005, 0.01] and rates[-1] == pytest.approx(0.001)


def test_each_step_is_one_line(train):
    lines = [line for line in train("steps=4").out.splitlines() if re.match(r"step \d", line)]
    shape = (
        r"step (\d)/4  loss \d\.\d{3}  grad \d\.\d\d  lr \d\.\de-\d\d  \S+ ms  \S+ tok/s  "
        r"mfu n/a  eta \d+s"
    )
    assert [re.fullmatch(shape, line)[1] for line in lines] == ["1", "2", "3", "4"]


def test_without_a_terminal_there_is_no_progress_bar(train):
    assert "\x1b" not in train().out and "\r" not in train().out


def test_without_clipping_no_norm_is_computed(train):
    outcome = train("clip_norm=null")
    assert "grad n/a" in outcome.out
    assert [record["grad_norm"] for record in outcome.records()] == [None] * 3


def test_mfu_is_of_the_peak_that_was_measured_here(train, monkeypatch):
    peaks = SimpleNamespace(best=SimpleNamespace(matmul_flops_per_s=1e9))
    monkeypatch.setattr("harness.machine.peaks.cached_peaks", lambda: peaks)
    outcome = train("data=counting")
    for record in outcome.records():
        # 6 N + 6 L C T, as llm.c counts
        flops = record["tokens_per_s"] * (6 * 16_480 + 6 * 1 * 32 * 16)
        assert record["mfu"] == pytest.approx(flops / 1e9)
    assert re.search(r"mfu \d+\.\d%", outcome.out)


def test_the_run_folder_says_what_ran(train):
    outcome = train("ops.attention=python", "steps=2")
    folder = outcome.folder
    resolved = json.loads((folder / "resolved.json").read_text())
    config = OmegaConf.to_container(OmegaConf.load(folder / "config.yaml"))
    versions = json.loads((folder / "versions.json").read_text())
    data = load_data(command_line.compose(["data=text", "data.path=text.txt", "model=micro"]))
    assert config["steps"] == 2 and config["ops"]["attention"] == "python"
    assert resolved["data"]["sha256"] == data.sha256
    assert versions["numpy"]["version"] == np.__version__
    rows = {row["hook"]: row for row in resolved["ops"]}
    assert rows["attention_forward"]["backend"] == "python"
    assert rows["attention_forward"]["chosen_by"] == "ops.attention"
    assert rows["layernorm_forward"]["backend"] == "numpy"
    assert re.search(r"backends/python_loops/attention\.py:\d+", rows["attention_forward"]["where"])
    assert {"adamw", "squared_norm"} < set(rows)


def test_a_step_with_lr_0_changes_nothing_and_validation_agrees_with_training(train):
    """data=counting validates on the very tokens that it trains on."""
    outcome = train("data=counting", "optimizer.lr=0", "steps=2", "validate_every=1")
    losses = {record["loss"] for record in outcome.records()}
    (loss,) = losses
    for record in outcome.records("validation"):
        assert record["loss"] == pytest.approx(loss, rel=1e-6)


def test_every_step_takes_the_next_sequences_until_all_were_taken(train):
    """With lr 0: steps that are a whole epoch each agree, those that are a part of one do not."""
    tokens = int(len(Path("text.txt").read_text()) * 0.9)
    per_epoch = (tokens - 1) // 16
    still = ["optimizer.lr=0", "steps=3"]
    parts = train(*still, f"batch_size={per_epoch // 3}", "name=parts")
    whole = train(*still, f"batch_size={per_epoch}", "name=whole")
    assert len(set(_steps(parts.folder))) == 3
    (folder,) = (f for f in whole.folders if f != parts.folder)
    losses = [float.fromhex(loss) for loss in _steps(folder)]
    assert losses == pytest.approx([losses[0]] * 3, rel=1e-6)


def test_validation_and_samples_on_the_way_change_nothing_else(train):
    alone = train("steps=4")
    watched = train(
        "steps=4", "sample.every=1", "validate_every=1", "name=watched", "sample.length=5"
    )
    (first, second) = watched.folders
    assert alone.folder == first
    assert [r["kind"] for r in _records(second)].count("sample") == 4
    assert _steps(first) == _steps(second)
    assert _weights(first, 4) == _weights(second, 4)


def test_samples_of_the_same_seed_are_the_same_and_each_step_draws_its_own(train):
    unchanged = ["sample.every=1", "optimizer.lr=0"]
    train(*unchanged)
    outcome = train(*unchanged)
    first, second = ([r for r in _records(f) if r["kind"] == "sample"] for f in outcome.folders)
    assert first == second and len({r["text"] for r in first}) == 3


def test_the_same_seed_gives_the_same_weights_and_batches_on_every_backend(train):
    overrides = ["model=micro", "data=text", "data.path=text.txt", "batch_size=2"]
    initial, losses = set(), []
    for backend in ("numpy", "python", "reference"):
        run = command_line.compose([*overrides, f"backend={backend}"])
        model = model_of(run, load_data(run).vocab_size)
        trainer = Trainer(trainer_settings(run, model), all_ops())
        initial.add(b"".join(a.tobytes() for a in trainer.state()["model"].values()))
        train(f"backend={backend}", f"name={backend}", "optimizer.lr=1e-3")
    assert len(initial) == 1
    for name in ("numpy", "python", "reference"):
        (folder,) = Path("runs").glob(f"{name}-*")
        losses.append([float.fromhex(loss) for loss in _steps(folder)])
    assert losses[0] == pytest.approx(losses[2], rel=1e-5)
    assert losses[1] == pytest.approx(losses[2], rel=1e-5)


def test_another_seed_gives_other_weights_and_batches(train):
    train("seed=1")
    first, second = train("seed=2").folders
    assert not set(_steps(first)) & set(_steps(second))


def test_two_runs_never_share_a_folder(train):
    for _ in range(4):
        outcome = train("steps=1")
    assert len(set(outcome.folders)) == 4


def test_a_run_needs_no_validation_split(train):
    outcome = train("data.validation_fraction=0", "baselines=true")
    assert outcome.code == 0
    assert outcome.records("validation") == []


def test_the_final_loss_stands_beside_what_counting_reaches(train):
    outcome = train("baselines=true")
    (record,) = outcome.records("baselines")
    assert record["unigram"] > record["bigram"] > record["trigram"]
    assert record["this model"] == outcome.records("validation")[-1]["loss"]


def test_bf16_and_a_mixture_of_precisions_train(train):
    outcome = train("backend=reference", "precision=bf16", "precision_of.layernorm=fp32")
    assert outcome.code == 0
    assert [r["loss"] for r in outcome.records()] == pytest.approx([5.5] * 3, abs=0.1)


HOOKS = [
    "embedding_forward",
    "embedding_backward",
    "layernorm_forward",
    "layernorm_backward",
    "matmul_forward",
    "matmul_backward",
    "attention_forward",
    "attention_backward",
    "residual_layernorm_forward",
    "residual_layernorm_backward",
    "matmul_gelu_forward",
    "matmul_gelu_backward",
    "matmul_cross_entropy_forward",
    "matmul_cross_entropy_backward",
]


@pytest.mark.parametrize("hook", HOOKS)
def test_nan_stops_the_run_before_the_update_and_names_step_op_and_backend(train, faulty, hook):
    """From its seventh call on an op writes NaN: step 2 at the earliest, step 7 at the latest."""
    file = faulty(hook, f"{_first_output(hook)}.fill(float('nan'))", first=7)
    # The op as one: where it is expanded into its parts, its halves do not run.
    whole = f"ops.{all_ops().op_of(hook).name}=numpy"
    outcome = train(whole, f"ops.{hook}={file}", "steps=9", "checkpoint_every=1")
    assert outcome.code == 6, outcome.err
    assert outcome.err.startswith("error[not-finite] ")
    done = len(outcome.records())
    assert f"step {done + 1} is not finite" in outcome.err
    assert re.search(rf"first op +{hook} of \S*faulty_{hook}\.py ", outcome.err)
    kept = sorted(path.name for path in (outcome.folder / "checkpoints").iterdir())
    assert kept[-1] == f"step-{done:08d}"


def test_nan_in_an_early_micro_batch_is_named_too(train, faulty):
    """The op fails on the first of three sequences, whenever that one is given to it."""
    counted = np.arange(3 * 16 + 1, dtype=np.int32)
    first, second = (Sequences(counted, 16, seed=0).take(i, 1)[0][0, 0] for i in (0, 1))
    assert first != second
    statement = f"out_BTC.fill(float('nan') if tokens_BT[0, 0] == {first} else 1.0)"
    file = faulty("embedding_forward", statement, first=1)
    changes = ["data=counting", "batch_size=1", "gradient_accumulation=3"]
    outcome = train(f"ops.embedding_forward={file}", *changes)
    assert outcome.code == 6
    assert re.search(r"first op +embedding_forward of ", outcome.err)


def test_a_step_that_is_not_finite_can_be_skipped(train, faulty):
    clean = train("steps=5")
    file = faulty("gelu_backward", "dx_NF.fill(float('nan'))", first=2, last=3)
    outcome = train(f"ops.gelu_backward={file}", "steps=5", "on_nonfinite=skip", "name=skips")
    folder = next(f for f in outcome.folders if f != clean.folder)
    assert outcome.code == 0
    assert [r["skipped"] for r in _records(folder) if r["kind"] == "step"] == [0, 1, 1, 0, 0]
    assert outcome.out.count("no update was made") == 2
    assert _weights(folder, 5)


def test_weights_that_overflow_in_the_last_update_are_not_saved(train):
    huge = ["optimizer=sgd", "optimizer.lr=3e38", "loss_gradient=sum", "clip_norm=1e30"]
    outcome = train(*huge, "schedule=constant", "steps=1")
    assert outcome.code == 6
    assert outcome.err.startswith("error[checkpoint-not-finite]")
    assert not list(outcome.folder.glob("checkpoints/step-*"))


def _first_output(hook: str) -> str:
    return next(a.name for a in all_ops().half(hook).signature.outputs)


def _records(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def _steps(folder: Path) -> list[str]:
    return [float(r["loss"]).hex() for r in _records(folder) if r["kind"] == "step"]


def _weights(folder: Path, step: int) -> str:
    path = folder / "checkpoints" / f"step-{step:08d}" / "manifest.json"
    return json.loads(path.read_text())["files"]["model.safetensors"]["sha256"]
