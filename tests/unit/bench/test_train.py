import importlib.util
import json

import numpy as np
import pytest

from harness.bench import commands
from harness.bench.train import (
    COMPARED_LOSSES,
    Contest,
    Result,
    run_bench_train,
    why_no_peer,
    works_of,
)
from harness.command_line import compose
from harness.errors import ConfigError
from harness.plugins import load_wrapper

HAVE_TORCH = importlib.util.find_spec("torch") is not None


@pytest.fixture(scope="module")
def micro(tmp_path_factory):
    """The overrides of the smallest run there is, on a text of its own."""
    text = tmp_path_factory.mktemp("data") / "text.txt"
    text.write_text("".join(f"{i} squared is {i * i}.\n" for i in range(200)))
    return ["model=micro", "batch_size=2", "data=text", f"data.path={text}", "sequence_length=8"]


def contest(micro, *names, more=(), peer=False):
    return Contest({n: compose([*micro, *more, f"backend={n}"]) for n in names}, peer)


def test_backends_train_in_turns_to_the_same_losses(micro, peaks):
    ours = contest(micro, "numpy", "reference")
    timings = ours.run(turns=3)
    result = Result(ours, timings, [], peaks)
    assert result.agrees
    assert 0 < result.differences["reference"] < 1e-5
    assert [t.rounds for t in timings.values()] == [3, 3]
    losses = ours.contestants[0].losses[:COMPARED_LOSSES]
    assert losses[-1] < losses[0]


def test_a_wrong_kernel_trains_to_losses_that_disagree(micro, peaks, tmp_path, monkeypatch):
    monkeypatch.setattr("harness.bench.train.TURN_S", 0.0)
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
        micro, ["numpy"], variants=[f"ops.layernorm_forward={file}"], turns=3, peer=False,
        peaks=peaks, show=shown.append,
    )  # fmt: skip
    text = "\n".join(shown)
    assert code == 6
    assert "DISAGREE" in text
    assert f"ops.layernorm_forward={file} instead of numpy: the half-ops predict" in text


def test_variants_that_are_not_the_same_work_are_refused(micro, peaks):
    with pytest.raises(ConfigError, match="would not do the same work") as refused:
        run_bench_train(micro, ["numpy"], variants=["batch_size=3"], peer=False, peaks=peaks)
    assert refused.value.facts["differ"] == "batch_size"


def test_the_waterfall_has_every_call_of_a_step_and_adds_up(micro, peaks):
    ours = contest(micro, "numpy", more=["gradient_accumulation=2"])
    trainer = ours.trainers["numpy"]
    expected = set(trainer.hooks)
    works = works_of(trainer)
    (waterfall,) = ours.waterfalls(peaks, steps=3)
    assert {op.hook for op in waterfall.ops} == expected
    assert {op.hook: op.calls for op in waterfall.ops} == {h: len(w) for h, w in works.items()}
    assert 0 < waterfall.ops_s < waterfall.step_s
    assert waterfall.outside_share == pytest.approx(1 - waterfall.ops_s / waterfall.step_s)


def test_the_clocks_count_each_call(ops):
    from harness.bench.train import OP_TIMES

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


def test_without_torch_the_peer_is_listed_as_not_run(micro, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    ours = contest(micro, "numpy", peer=True)
    assert [one.name for one in ours.contestants] == ["numpy"]
    assert "torch: not run (torch is not installed)" in ours.heading()


@pytest.mark.skipif(not HAVE_TORCH, reason="torch is not installed")
@pytest.mark.parametrize(
    ("override", "reason"),
    [
        ("precision=bf16", "float32 only"),
        ("precision_of.gelu=tf32", "float32 only"),
        ("optimizer=sgd", "AdamW only"),
        ("model.activation=residual", "plain GPT-2"),
    ],
)
def test_a_peer_that_cannot_do_the_same_work_says_why(micro, override, reason):
    from harness.config import model_of, trainer_settings

    config = compose([*micro, override])
    assert reason in why_no_peer(trainer_settings(config, model_of(config, 256)))


@pytest.mark.skipif(not HAVE_TORCH, reason="torch is not installed")
@pytest.mark.parametrize(
    "more",
    [
        [],
        ["gradient_accumulation=2"],
        ["optimizer.decay=all", "optimizer.weight_decay=0.5"],
        ["clip_norm=null", "loss_gradient=sum", "optimizer.lr=1e-4"],
        ["model.vocab_size=300", "clip_norm=0.1"],
    ],
    ids=lambda more: " ".join(more) or "as configured",
)
def test_pytorch_trains_to_the_same_losses(micro, peaks, more):
    with_peer = contest(micro, "numpy", more=more, peer=True)
    for one in with_peer.contestants:
        one.run(COMPARED_LOSSES)
    result = Result(with_peer, {}, [], peaks)
    assert set(result.differences) == {"numpy", "torch"}
    assert 0 < result.differences["torch"] < 1e-4  # float32, ten steps


@pytest.mark.skipif(not HAVE_TORCH, reason="torch is not installed")
def test_pytorch_has_the_same_gelu_where_it_bends(micro):
    # Initial weights keep it near 0, and much larger ones far out: its two forms agree there.
    from harness.bench.peers.torch_gpt2 import TorchGPT2

    ours = contest(micro, "numpy")
    trainer = ours.trainers["numpy"]
    large = {name: 10 * w for name, w in trainer.parameters.to_host().items()}
    trainer.parameters.from_host(large)
    trainer.executor.refresh()
    peer = TorchGPT2(ours.model, large, trainer.settings.optimizer, (), micro_batch=2)
    x_BT, y_BT = ours._batches[0]
    assert peer.step(x_BT, y_BT, 0.0) == pytest.approx(trainer.step(x_BT, y_BT, 0.0).loss, rel=2e-6)


def test_the_command_writes_what_it_prints(micro, peaks, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("harness.bench.train.TURN_S", 0.0)
    monkeypatch.setattr("harness.bench.train.measured_peaks", lambda: peaks)
    stem = tmp_path / "train"
    code = commands.main(
        ["train", *micro, "--backend", "numpy", "--turns", "3", "--no-peer", "--report", str(stem)]
    )
    assert code == 0
    printed = capsys.readouterr().out
    assert "outside ops" in printed
    record = json.loads(stem.with_suffix(".json").read_text())
    assert record["tokens_per_step"] == 16
    assert len(record["contestants"]["numpy"]["losses"]) == COMPARED_LOSSES
    assert record["waterfalls"][0]["ops"]
    assert "where a step of numpy goes" in stem.with_suffix(".md").read_text()
