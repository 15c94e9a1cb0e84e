"""A merged model has the product of the pair in its weights, and can be taken apart again."""

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest

from harness.errors import CheckpointError, NumericsError
from harness.interchange.merged import BLOCK_NUMBERS, merged
from harness.models.gpt2 import GPT2
from harness.models.kinds import tensor_shapes
from harness.models.lora import Lora
from harness.plugins.loading import all_ops
from harness.training.optimizer import OptimizerSettings
from harness.training.trainer import Trainer, TrainerSettings

MODEL = GPT2(layers=2, heads=2, channels=16, positions=6, vocab_size=30)
EVERY = Lora(3, 6.0, ("q", "k", "v", "attproj", "fc", "fcproj"))
WHOLE = Lora(2, -0.3, ("qkv", "fc"))
of_each = pytest.mark.parametrize("lora", [EVERY, WHOLE], ids=str)


@dataclass
class InMemory:
    """A model file that is a dict."""

    arrays: dict
    model: GPT2 = MODEL
    path: Path = Path("model.bin")
    description: str = "in memory"
    dtype: np.dtype = field(default_factory=lambda: np.dtype(np.float32))
    tokenizer: None = None

    def read_into(self, name, out):
        out[...] = self.arrays[name]

    def close(self):
        pass


def source(seed=0, size=0.02):
    rng = np.random.default_rng(seed)
    return InMemory(
        {n: (size * rng.standard_normal(s)).astype(np.float32) for n, s in shapes(MODEL)}
    )


def shapes(model):
    return tensor_shapes(model).items()


def random_pairs(lora, model=MODEL):
    rng = np.random.default_rng(1)
    shapes = lora.shapes(model).items()
    return {name: rng.standard_normal(shape).astype(np.float32) for name, shape in shapes}


def everything(view):
    arrays = {name: np.empty(shape, np.float32) for name, shape in shapes(view.model)}
    for name, array in arrays.items():
        view.read_into(name, array)
    return arrays


def by_the_formula(base, lora, pairs):
    """Row by row of each target's rows, in float64."""
    C = MODEL.channels
    places = {"q": ("qkvw", 0), "k": ("qkvw", C), "v": ("qkvw", 2 * C), "qkv": ("qkvw", 0)}
    places |= {t: (f"{t}w", 0) for t in ("attproj", "fc", "fcproj")}
    expected = {name: array.astype(np.float64) for name, array in base.arrays.items()}
    for layer in range(MODEL.layers):
        for target in lora.targets:
            a, b = (pairs[f"lora_{half}.{target}.{layer}"].astype(np.float64) for half in "ab")
            kind, first = places[target]
            for row, weights in enumerate(b, first):
                expected[f"{kind}.{layer}"][row] += lora.alpha / lora.rank * (weights @ a)
    return expected


@of_each
def test_merging_adds_the_product_to_the_right_rows_rounded_once(lora):
    base, pairs = source(), random_pairs(lora)
    expected = by_the_formula(base, lora, pairs)
    found = everything(merged(base, lora, pairs.__getitem__))
    for name, array in found.items():
        rounding = np.spacing(np.abs(expected[name]).astype(np.float32))
        assert (np.abs(array - expected[name]) <= 0.501 * rounding).all(), name
    moved = {name for name in found if (found[name] != base.arrays[name]).any()}
    kinds = {"qkvw", "fcw"} if lora is WHOLE else {"qkvw", "attprojw", "fcw", "fcprojw"}
    assert moved == {f"{kind}.{layer}" for kind in kinds for layer in range(2)}


@of_each
def test_what_was_merged_comes_out_again_to_one_rounding_of_the_sizes(lora):
    base, pairs = source(), random_pairs(lora)
    joined = InMemory(everything(merged(base, lora, pairs.__getitem__)))
    apart = everything(merged(joined, lora, pairs.__getitem__, sign=-1))
    for name, array in base.arrays.items():
        delta = np.abs(joined.arrays[name].astype(np.float64) - array)
        ulp = np.spacing((np.abs(array) + delta).astype(np.float32))
        assert (np.abs(apart[name].astype(np.float64) - array) <= ulp).all(), name


@of_each
@pytest.mark.parametrize("backend", ["numpy", "reference"])
def test_a_merged_model_has_the_logits_of_the_adapted_one(lora, backend):
    base, pairs = source(size=0.3), random_pairs(lora)
    tokens = np.random.default_rng(2).integers(0, 30, (2, 6), dtype=np.int32)
    results = []
    for adapter, file in ((lora, base), (None, merged(base, lora, pairs.__getitem__))):
        sgd, ops = OptimizerSettings("sgd", weight_decay=0.0), {"every_op": backend}
        settings = TrainerSettings(MODEL, 2, 6, ops, sgd, adapter=adapter)
        trainer = Trainer(settings, all_ops(), file)
        if adapter is not None:
            trainer.parameters.from_host(trainer.parameters.to_host() | pairs)
            trainer.executor.refresh()
        executor = trainer.another(2, 6, head="logits")
        executor.write("tokens", tokens)
        executor.forward()
        results.append(executor.read())
    adapted, plain = results
    assert np.linalg.norm(adapted - plain) < 1e-5 * np.linalg.norm(plain)


def test_a_weight_larger_than_a_block_is_merged_in_pieces_that_meet(monkeypatch):
    base, pairs = source(), random_pairs(EVERY)
    whole = everything(merged(base, EVERY, pairs.__getitem__))
    monkeypatch.setattr("harness.interchange.merged.BLOCK_NUMBERS", 7 * 16)
    assert BLOCK_NUMBERS > 48 * 16
    parts = everything(merged(base, EVERY, pairs.__getitem__))
    assert all(np.abs(whole[n] - parts[n]).max() <= 1e-6 for n in whole)  # another order of sums


def test_a_merged_model_says_what_it_is():
    view = merged(source(), EVERY, random_pairs(EVERY).__getitem__)
    assert view.model == MODEL and view.path == Path("model.bin") and view.tokenizer is None
    assert view.description.startswith("in memory, with lora, rank 3, alpha 6")


def test_an_adapter_of_another_model_is_refused_before_anything_is_read():
    other = GPT2(layers=2, heads=2, channels=8, positions=6, vocab_size=30)
    with pytest.raises(CheckpointError) as caught:
        merged(source(), EVERY, random_pairs(EVERY, other).__getitem__)
    assert caught.value.slug == "adapter-misfit"


def test_a_sum_beyond_float32_is_an_error_and_not_an_infinity():
    pairs = {name: np.full_like(array, 2e19) for name, array in random_pairs(EVERY).items()}
    view = merged(source(), EVERY, pairs.__getitem__)
    with pytest.raises(NumericsError) as caught:
        view.read_into("qkvw.0", np.empty((48, 16), np.float32))
    assert caught.value.slug == "merge-not-finite"
