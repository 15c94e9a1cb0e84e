"""A run with adapter=lora: what it prints and leaves, and that it goes on bit for bit."""

import hashlib
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from harness import cli
from harness.interchange.huggingface.peft import load_peft
from harness.interchange.opening import open_model
from harness.models.gpt2 import GPT2, build
from harness.models.initial_values import initial_values
from harness.models.kinds import tensor_shapes
from harness.models.lora import Lora
from harness.plugins.loading import all_ops

LORA = ("adapter=lora", "adapter.targets=[q,v,fcproj]", "schedule=constant", "optimizer.lr=0.01")
MODEL = GPT2(layers=1, heads=2, channels=32, positions=16, vocab_size=256, init="uniform")


def weights_of(folder: Path, step: int) -> dict:
    return load_file(folder / "checkpoints" / f"step-{step:08d}" / "model.safetensors")


def sha256(array) -> str:
    return hashlib.sha256(array.tobytes()).hexdigest()


@pytest.mark.parametrize("backend", ["numpy", "python"])
def test_the_base_weights_of_a_run_are_those_it_began_with(train, backend):
    outcome = train(*LORA, f"backend={backend}", "seed=5")
    assert outcome.code == 0, outcome.err
    program, _ = build(all_ops(), MODEL, 1, 1)
    stored = weights_of(outcome.folder, 3)
    for name, parameter in program.parameters.items():
        assert sha256(stored[name]) == sha256(initial_values(parameter, 5)), name
    assert {name for name in stored if "lora_b" in name and stored[name].any()} == {
        "lora_b.q.0",
        "lora_b.v.0",
        "lora_b.fcproj.0",
    }


def test_a_run_of_an_adapter_goes_on_bit_for_bit(train):
    whole = train(*LORA, "steps=6", "runs_dir=whole", runs_dir="whole")
    train(*LORA, "steps=3")
    resumed = train(*LORA, "steps=6", "resume=auto")
    assert "resumed   after step 3" in resumed.out
    assert resumed.losses == whole.losses and len(whole.losses) == 6
    assert resumed.weights(6) == whole.weights(6)
    assert float.fromhex(whole.losses[-1]) < float.fromhex(whole.losses[0])


def test_a_run_says_how_many_numbers_it_trains(train):
    out = train(*LORA, "steps=1").out
    trained = 4 * (32 + 32) * 2 + 4 * (128 + 32)
    assert f"adapter   {trained:,} of 21,472 parameters are trained (5.37 %): lora, rank 4" in out


@pytest.mark.parametrize(
    ("changed", "differs"),
    [
        ("adapter.rank=5", "adapter.rank"),
        ("adapter.alpha=9", "adapter.alpha"),
        ("adapter.targets=[q,k]", "adapter.targets"),
        ("adapter=none", "adapter.name"),
    ],
)
def test_another_adapter_is_not_continued(train, changed, differs):
    train("adapter=lora", "steps=1")
    outcome = train("adapter=lora", "steps=2", "resume=auto", changed)
    assert outcome.code == 4
    assert outcome.err.startswith(
        f"error[resume-misfit] the run cannot go on from this checkpoint: {differs} differs"
    )


def test_the_same_targets_in_another_order_and_by_other_names_go_on(train):
    train("adapter=lora", "adapter.targets=[q,attproj]", "steps=1")
    assert train("adapter=lora", "adapter.targets=[out,q]", "steps=2", "resume=auto").code == 0


def test_a_run_without_an_adapter_is_not_continued_with_one(train):
    train("steps=1")
    outcome = train("steps=2", "resume=auto", "adapter=lora")
    assert outcome.code == 4 and "adapter.name differs" in outcome.err


def test_the_adapter_that_a_run_leaves_is_that_of_its_last_checkpoint(train):
    outcome = train(*LORA)
    lora, arrays = load_peft(outcome.folder / "adapter", MODEL)
    assert lora == Lora(4, 8.0, ("q", "v", "fcproj"))
    stored = weights_of(outcome.folder, 3)
    assert {n for n in stored if n.startswith("lora")} == set(arrays)
    assert all(arrays[name].tobytes() == stored[name].tobytes() for name in arrays)


def test_an_adapter_is_exported_merged_and_taken_out_again_by_commands(train, small, capfd):
    base = train("seed=2").folder
    rest = [override for override in small if override != "model=micro"]  # the run has a shape
    begun = (f"model_from={base}", *LORA, "steps=6", "runs_dir=tuned")
    tuned = train(*rest, *begun, small=False, runs_dir="tuned")
    assert tuned.code == 0, tuned.err
    for command in (
        ["export", "peft", str(tuned.folder), "alone"],
        ["adapter", "merge", str(base), "alone", "merged"],
        ["adapter", "unmerge", "merged", "alone", "apart"],
    ):
        assert cli.main(command) == 0, capfd.readouterr().err
    whole, merged, before, apart = (
        tensors_of(path) for path in (tuned.folder, "merged", base, "apart")
    )
    changed = {n for n in before if (merged[n] != before[n]).any()}
    assert changed == {"qkvw.0", "fcprojw.0"}
    for name in before:
        # A run with an adapter is opened as the sum of both.
        assert merged[name].tobytes() == whole[name].tobytes(), name
        assert np.abs(apart[name] - before[name]).max() <= 2.0**-24, name  # weights are below 1/2
    assert np.abs(merged["qkvw.0"] - before["qkvw.0"]).max() > 1e-4


def tensors_of(path) -> dict:
    with open_model(path) as source:
        found = {n: np.empty(s, np.float32) for n, s in tensor_shapes(source.model).items()}
        for name, array in found.items():
            source.read_into(name, array)
    return found


@pytest.mark.parametrize(
    ("overrides", "slug"),
    [
        (("adapter.rank=8",), "no-adapter"),
        (("adapter=lora", "adapter.rank=0"), "adapter-rank"),
        (("adapter=lora", "adapter.targets=[w]"), "unknown-target"),
        (("adapter=lora", "adapter.targets=[q,qkv]"), "targets-overlap"),
        (("adapter=lora", "adapter.alpha=inf"), "value-not-finite"),
        (("adapter=lorra",), "unknown-option"),
        (("adapter.name=lorra",), "unknown-value"),
    ],
)
def test_settings_that_cannot_be_are_refused_before_anything_is_made(train, overrides, slug):
    outcome = train(*overrides)
    assert outcome.code == 2 and outcome.err.startswith(f"error[{slug}]")
    assert outcome.folders == []
