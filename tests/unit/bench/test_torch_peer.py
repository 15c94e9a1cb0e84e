"""PyTorch's GPT-2 does the same work as ours: the ten losses say so."""

import importlib.util
import shutil

import numpy as np
import pytest

from harness.bench.contest import ours
from harness.bench.contest.command import entries
from harness.bench.contest.contest import Contest
from harness.bench.contest.entrants import Entrants
from harness.bench.contest.peers import torch_peer
from harness.bench.contest.report import Result
from harness.bench.contest.work import COMPARED_LOSSES
from harness.config.command_line import compose
from harness.config.config import model_of, trainer_settings
from harness.plugins.loading import all_ops
from harness.training.trainer import Trainer

HAVE_TORCH = importlib.util.find_spec("torch") is not None
needs_torch = pytest.mark.skipif(not HAVE_TORCH, reason="torch is not installed")


@pytest.fixture(scope="module")
def micro(tmp_path_factory):
    text = tmp_path_factory.mktemp("data") / "text.txt"
    text.write_text("".join(f"{i} squared is {i * i}.\n" for i in range(200)))
    return ["model=micro", "batch_size=2", "data=text", f"data.path={text}", "sequence_length=8"]


def test_without_torch_or_a_compiler_there_is_no_peer(monkeypatch):
    spec = {"compile": True, "threads": 1}
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert torch_peer.prepare(spec) == "torch is not installed"
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: name)
    monkeypatch.setattr(shutil, "which", lambda name: None)
    assert "no C++ compiler" in torch_peer.prepare(spec)


@needs_torch
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
def test_pytorch_trains_to_the_same_losses(micro, tmp_path, more):
    contest = Contest(Entrants(entries([*micro, *more], [], []), ["torch"]))
    contest.write_files(tmp_path)
    losses = {}
    for name, module in {"numpy": ours, "torch": torch_peer}.items():
        child = contest.contestant(name)
        assert module.prepare(child.spec) == ""
        one = module.build(child.spec)
        losses[name] = np.array([one.step() for _ in range(COMPARED_LOSSES)])
        child.end()
    apart = np.max(np.abs(losses["torch"] / losses["numpy"] - 1))
    assert 0 < apart < 1e-4  # float32, ten steps


@needs_torch
def test_pytorch_in_bf16_is_near_and_not_the_same(micro, peaks):
    with Contest(Entrants(entries(micro, [], []), ["torch-bf16@1"])) as contest:
        for one in contest.contestants.values():
            one.run(COMPARED_LOSSES)
        result = Result(contest, {}, [], peaks)
    assert result.agrees
    assert result.differences["torch-bf16@1"] > 1e-6
    assert "eager, bf16 autocast" in contest.contestants["torch-bf16@1"].what
    assert contest.contestants["torch-bf16@1"].what.endswith("threads 1")


@needs_torch
def test_pytorch_has_the_same_gelu_where_it_bends(micro):
    # Initial weights keep it near 0, and much larger ones far out: its two forms agree there.
    from harness.bench.contest.peers.torch_gpt2 import LAYERNORM_EPS, TorchGPT2
    from harness.models import gpt2

    assert LAYERNORM_EPS == gpt2.LAYERNORM_EPS
    config = compose(micro)
    trainer = Trainer(trainer_settings(config, model_of(config, 256)), all_ops())
    large = {name: 10 * w for name, w in trainer.parameters.to_host().items()}
    trainer.parameters.from_host(large)
    trainer.executor.refresh()
    model = trainer.settings.model
    peer = TorchGPT2(model, large, trainer.settings.optimizer, (), micro_batch=2)
    x_BT, y_BT = np.random.default_rng(0).integers(0, 256, (2, 2, 8), np.int32)
    assert peer.step(x_BT, y_BT, 0.0) == pytest.approx(trainer.step(x_BT, y_BT, 0.0).loss, rel=2e-6)
