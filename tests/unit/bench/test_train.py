"""Contestants take turns on the same work, and their losses are held against each other."""

import json
import sys
from pathlib import Path

import numpy as np
import psutil
import pytest

from harness.bench import commands
from harness.bench.contest.command import entries, run_bench_train
from harness.bench.contest.contest import Contest, heading_of
from harness.bench.contest.entrants import Entrants, check_same_work, peer_and_threads, why_no_torch
from harness.bench.contest.report import BF16_TOLERANCE, Result
from harness.bench.contest.work import COMPARED_LOSSES
from harness.bench.waterfall import waterfall_of, works_of
from harness.config.command_line import compose
from harness.config.config import model_of, trainer_settings
from harness.errors import ConfigError, PluginError, ResourceError
from harness.plugins.loading import all_ops, load_wrapper
from harness.training.trainer import Trainer

FAKE_PEER = Path(__file__).with_name("fake_peer.py")
FAKE_LLMC = Path(__file__).with_name("fake_llmc.py")


@pytest.fixture(scope="module")
def micro(tmp_path_factory):
    """The overrides of the smallest run there is, on a text of its own."""
    text = tmp_path_factory.mktemp("data") / "text.txt"
    text.write_text("".join(f"{i} squared is {i * i}.\n" for i in range(500)))
    return ["model=micro", "batch_size=2", "data=text", f"data.path={text}", "sequence_length=8"]


@pytest.fixture
def short_turns(monkeypatch):
    monkeypatch.setattr("harness.bench.contest.contest.TURN_S", 0.0)
    monkeypatch.setattr("harness.bench.contest.contest.PAUSE_S", 0.0)


@pytest.fixture
def fake_torch(monkeypatch):
    """Each peer is a fake that behaves in a way of fake_peer.py's."""

    def use(**modes):
        monkeypatch.setattr("harness.bench.contest.contest.TORCH_PEER", FAKE_PEER)
        modes = {name.replace("_", "-"): mode for name, mode in modes.items()}
        peers = "harness.bench.contest.contest.peer_spec"
        monkeypatch.setattr(peers, lambda contest, name: {"mode": modes[name]})

    return use


def trainer_of(micro, *more):
    config = compose([*micro, *more])
    return Trainer(trainer_settings(config, model_of(config, 256)), all_ops())


def test_contestants_train_in_turns_to_the_same_losses(micro, peaks, short_turns):
    bf16 = "precision=bf16 threads=1"
    entrants = Entrants(entries(micro, ["numpy", "reference"], [bf16]))
    with Contest(entrants) as contest:
        assert len({one.pid for one in contest.contestants.values()}) == 3
        timings = contest.run(turns=3)
        result = Result(contest, timings, contest.waterfalls(peaks, steps=3), peaks)
    assert result.agrees
    assert 0 < result.differences["reference"] < 1e-5
    assert result.tolerance(bf16) == BF16_TOLERANCE > result.tolerance("reference")
    assert 1e-5 < result.differences[bf16] < BF16_TOLERANCE
    assert any("0.02 allowed, bf16" in line for line in result.lines())
    assert [t.rounds for t in timings.values()] == [3, 3, 3]
    losses = contest.contestants["numpy"].losses[:COMPARED_LOSSES]
    assert losses[-1] < losses[0]
    assert losses == pytest.approx(losses_here(micro), rel=1e-6)


def losses_here(micro):
    """The same ten losses, by a trainer of this process on batches that are taken anew."""
    from harness.data import Sequences
    from harness.run.data import load_data

    trainer = trainer_of(micro)
    sequences = Sequences(load_data(compose(micro)).train, 8, trainer.settings.seed)
    return [trainer.step(*sequences.take(2 * i, 2), 3e-3).loss for i in range(COMPARED_LOSSES)]


def test_losses_that_disagree_end_the_command_with_6(
    micro, peaks, tmp_path, short_turns, fake_torch
):
    fake_torch(torch="")  # its loss is always 5
    file = tmp_path / "softened.py"
    file.write_text(
        "import numpy as np\nfrom harness import hookimpl\n\n@hookimpl\n"
        "def layernorm_forward(out_NC, mean_N, rstd_N, x_NC, weight_C, bias_C, eps):\n"
        "    x_NC.mean(axis=1, out=mean_N)\n"
        "    rstd_N[:] = 1 / np.sqrt(x_NC.var(axis=1) + 100 * eps)\n"
        "    out_NC[...] = (x_NC - mean_N[:, None]) * rstd_N[:, None] * weight_C + bias_C\n"
    )
    shown = []
    code = run_bench_train(
        micro, ["numpy"], variants=[f"ops.layernorm_forward={file}"], turns=1, peers=["torch"],
        peaks=peaks, show=shown.append,
    )  # fmt: skip
    text = "\n".join(shown)
    assert code == 6
    assert f"losses of ops.layernorm_forward={file} DISAGREE" in text
    assert "losses of torch DISAGREE" in text
    assert f"ops.layernorm_forward={file} instead of numpy: the half-ops predict" in text


@pytest.mark.parametrize(
    ("override", "differs"),
    [
        ("batch_size=3", "batch_size"),
        ("optimizer.lr=1e-4", "optimizer.lr"),
        ("model.layers=2", "model"),
    ],
)
def test_variants_that_are_not_the_same_work_are_refused(micro, override, differs):
    with pytest.raises(ConfigError, match="would not do the same work") as refused:
        Contest(Entrants(entries(micro, ["numpy"], [override])))
    assert refused.value.facts["differ"] == differs


def test_variants_may_choose_how_a_step_is_computed(micro):
    more = ["precision=bf16", "recompute=block", "scratch_mib=1", "threads=1", "ops.gelu=reference"]
    configs = {"first": compose(micro), "second": compose([*micro, *more])}
    settings = {n: trainer_settings(c, model_of(c, 256)) for n, c in configs.items()}
    check_same_work(settings, configs)


def test_an_error_of_one_of_ours_is_the_error_that_training_would_give(micro):
    with (
        pytest.raises(PluginError) as refused,
        Contest(Entrants({"numpi": ["backend=numpi", *micro]})),
    ):
        pass
    assert refused.value.slug == "unknown-backend"
    assert refused.value.facts


def test_who_is_missing_is_listed_when_the_others_keep_going(micro, short_turns, fake_torch):
    fake_torch(torch="raises", torch_bf16="absent")
    ours = entries(micro, ["numpi", "numpy"], [])
    with Contest(Entrants(ours, ["torch", "torch-bf16"], keep_going=True)) as contest:
        assert list(contest.contestants) == ["numpy", "torch"]
        timings = contest.run(turns=1)
    assert list(timings) == ["numpy"]
    assert contest.unavailable["torch"] == "RuntimeError: no kernel for that"
    assert "numpi: not run (no backend is called 'numpi'" in heading_of(contest)


def test_a_contest_without_any_of_ours_is_refused(micro, fake_torch):
    fake_torch(torch="")
    entrants = Entrants({"numpi": [*micro, "backend=numpi"]}, ["torch"], keep_going=True)
    with pytest.raises(ConfigError, match="none of ours can train"), Contest(entrants):
        pass


def test_a_peer_that_is_absent_is_listed_and_one_that_dies_is_an_error(
    micro, short_turns, fake_torch
):
    fake_torch(torch="absent", torch_compile="killed")
    with Contest(Entrants(entries(micro, [], []), ["torch", "torch-compile"])) as contest:
        assert "torch: not run (it is Sunday)" in heading_of(contest)
        ours = contest.contestants["numpy"].pid
        with pytest.raises(ResourceError, match="torch-compile gave up in step 3"):
            contest.run(turns=3)
    assert not psutil.pid_exists(ours)


def test_llmc_takes_its_turns_on_its_own_batches(micro, peaks, short_turns, tmp_path):
    program = tmp_path / "train_gpt2"
    program.write_text(f'#!/bin/sh\nexec "{sys.executable}" "{FAKE_LLMC}"\n')
    program.chmod(0o755)
    data = [text for text in micro if text.startswith("data")]
    ours = entries([*data, "experiment=llmc_cpu", "model=tiny", "model.layers=1"], [], [])
    with Contest(Entrants(ours, llmc=program)) as contest:
        assert contest.work.batches.shape == (10, 2, 4, 64)
        assert "batches as llm.c takes them" in heading_of(contest)
        result = Result(contest, contest.run(turns=1), [], peaks)
    assert list(result.timings) == ["numpy", "llm.c"]
    assert np.diff(contest.contestants["llm.c"].losses[:10]).tolist() == [1.0] * 9
    assert not result.agrees


def test_llmc_is_listed_as_not_run_where_the_work_is_not_its_own(micro, tmp_path):
    program = tmp_path / "train_gpt2"
    program.write_text("")
    program.chmod(0o755)
    contest = Contest(Entrants(entries(micro, [], []), llmc=program))
    assert "batch_size=4, sequence_length=64, clip_norm=null" in contest.unavailable["llm.c"]


def test_an_unknown_peer_is_refused(micro):
    for name in ("jax", "torch@none", "torch@0"):
        with pytest.raises(ConfigError, match=f"no peer is called '{name}'"):
            run_bench_train(micro, peers=[name])


@pytest.mark.parametrize("turns", [0, -1])
def test_no_turns_are_refused(micro, turns):
    with pytest.raises(ConfigError, match=f"--turns {turns} must be at least 1"):
        run_bench_train(micro, peers=[], turns=turns)


def test_the_waterfall_has_every_call_of_a_step_and_adds_up(micro, peaks, tmp_path):
    from harness.bench.contest.ours import Ours

    more = ["gradient_accumulation=2", "backend=numpy"]
    batches = np.random.default_rng(0).integers(0, 256, (3, 2, 4, 8), np.int32)
    batches.tofile(tmp_path / "batches.bin")
    ours = Ours(
        {
            "overrides": [*micro, *more],
            "vocab_size": 256,
            "batches": str(tmp_path / "batches.bin"),
            "shape": batches.shape,
            "learning_rate": 1e-3,
        }
    )
    trainer = ours.trainer
    expected, works = set(trainer.plan.hooks), works_of(trainer)
    waterfall = waterfall_of("numpy", json.loads(json.dumps(ours.waterfall(steps=3))), peaks)
    assert {op.hook for op in waterfall.ops} == expected
    assert {op.hook: op.calls for op in waterfall.ops} == {h: len(w) for h, w in works.items()}
    assert 0 < waterfall.ops_s < waterfall.step_s
    assert waterfall.outside_share == pytest.approx(1 - waterfall.ops_s / waterfall.step_s)
    assert [op.seconds for op in waterfall.ops] == sorted(o.seconds for o in waterfall.ops)[::-1]


def test_the_clocks_count_each_call(ops):
    from harness.bench.contest.ours import OP_TIMES

    times = load_wrapper(str(OP_TIMES), ops)
    waited = []
    times.synchronize = lambda: waited.append(True)
    doubled = times.wrap_op("double", "numpy", lambda x: np.multiply(x, 2, out=x))
    x = np.ones(3)
    doubled(x)
    doubled(x)
    assert list(x) == [4, 4, 4]
    assert times.spent["double"].calls == len(waited) == 2
    assert times.spent["double"].seconds > 0


@pytest.mark.parametrize(
    ("override", "reason"),
    [
        ("optimizer=adamw", ""),
        ("optimizer=sgd", "AdamW only"),
        ("model.activation=residual", "plain GPT-2"),
        ("adapter=lora", "no adapters"),
    ],
)
def test_a_peer_that_cannot_do_the_same_work_says_why(micro, override, reason):
    config = compose([*micro, override])
    found = why_no_torch(trainer_settings(config, model_of(config, 256)))
    assert reason in found and bool(reason) == bool(found)


def test_the_command_writes_what_it_prints(
    micro, peaks, tmp_path, short_turns, monkeypatch, capsys
):
    monkeypatch.setattr("harness.bench.contest.command.measured_peaks", lambda: peaks)
    stem = tmp_path / "train"
    code = commands.main(
        ["train", *micro, "--backend", "numpy", "--turns", "3", "--no-peer", "--report", str(stem)]
    )
    assert code == 0
    printed = capsys.readouterr().out
    assert "outside ops" in printed
    record = json.loads(stem.with_suffix(".json").read_text())
    assert record["tokens_per_step"] == 16
    one = record["contestants"]["numpy"]
    assert len(one["losses"]) == COMPARED_LOSSES
    assert one["first_step_s"] > 0 and one["busy_share"] < 0.5
    assert record["waterfalls"][0]["ops"]
    assert "where a step of numpy goes" in stem.with_suffix(".md").read_text()


def test_the_ladders_rungs_are_commands_that_the_harness_takes():
    from experiments.speed_ladder.rungs import RUNGS

    assert [n for rung in RUNGS.values() for n in rung.peers if not peer_and_threads(n)] == []
    assert all(rung.backends for rung in RUNGS.values())
    for overrides in {rung.overrides for rung in RUNGS.values()}:
        assert compose(list(overrides)).clip_norm is None
