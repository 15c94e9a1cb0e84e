"""LoRA trains pairs beside frozen weights: what they compute, which gradients they get, what stays."""

import dataclasses
import hashlib
import math

import numpy as np
import pytest

from harness.errors import CheckpointError, ConfigError, HarnessError, NumericsError
from harness.models.gpt2 import GPT2
from harness.models.lora import TARGETS, Lora, check_pairs, pair_names, small

LR = 0.05
EVERY = Lora(rank=3, alpha=6.0, targets=("q", "k", "v", "attproj", "fc", "fcproj"))
WHOLE = Lora(rank=2, alpha=3.0, targets=("qkv",))
GPT2_124M = GPT2(layers=12, heads=12, channels=768, positions=1024, vocab_size=50257)
ADAMW = {"name": "adamw", "weight_decay": 0.1}


def hashes(trainer):
    """sha256 of every tensor that is not the adapter's."""
    arrays = trainer.state()["model"].items()
    base = {n: a for n, a in arrays if not n.startswith("lora")}
    return {name: hashlib.sha256(array.tobytes()).hexdigest() for name, array in base.items()}


def fill(trainer, seed=0, size=0.3):
    """Give every pair random numbers, so that none of them adds nothing."""
    rng = np.random.default_rng(seed)
    arrays = trainer.parameters.to_host()
    for name in arrays:
        if name.startswith("lora"):
            arrays[name] = (size * rng.standard_normal(arrays[name].shape)).astype(np.float32)
    trainer.parameters.from_host(arrays)
    trainer.executor.refresh()
    return {name: array.astype(np.float64) for name, array in arrays.items()}


def with_deltas(trainer, adapted, lora):
    """Put W + alpha/rank · b · a into a plain trainer, by the formula."""
    model = trainer.settings.model
    arrays = {n: a.copy() for n, a in adapted.items() if not n.startswith("lora")}
    for layer in range(model.layers):
        for target in lora.targets:
            a, b = (adapted[name] for name in pair_names(target, layer))
            weight = arrays[f"{TARGETS[target].kind}w.{layer}"]
            first, count = TARGETS[target].rows(model)
            weight[first : first + count] += lora.alpha / lora.rank * (b @ a)
    trainer.parameters.from_host({n: a.astype(np.float32) for n, a in arrays.items()})
    trainer.executor.refresh()


def test_rank_4_on_q_and_v_of_gpt2_124m_trains_147_456_numbers():
    lora = Lora(rank=4, alpha=8.0, targets=("q", "v"))
    assert lora.parameters(GPT2_124M) == 147_456
    assert "147,456 of 124,439,808 parameters are trained (0.118 %)" in lora.description(GPT2_124M)


def test_the_targets_in_any_order_and_by_any_name_are_one_adapter():
    assert Lora(targets=("out", "value", "q")) == Lora(targets=("q", "v", "attproj"))


@pytest.mark.parametrize(
    ("settings", "slug", "said"),
    [
        ({"rank": 0}, "adapter-rank", "adapter.rank=0"),
        ({"alpha": math.inf}, "adapter-alpha", "inf"),
        ({"alpha": math.nan}, "adapter-alpha", "nan"),
        ({"alpha": 0.0}, "adapter-alpha", "0.0"),
        ({"alpha": -1e308}, "adapter-alpha", "-1e+308"),
        ({"alpha": 1e17}, "adapter-alpha", "1e-15 to 1e+15"),
        ({"alpha": 9e-16}, "adapter-alpha", "1e-15 to 1e+15"),
        ({"targets": ("q", "attprj")}, "unknown-target", "nearest       attproj"),
        ({"targets": ("v", "q", "value")}, "target-twice", "v, value"),
        ({"targets": ("qkv", "k")}, "targets-overlap", "qkv and k"),
        ({"targets": ()}, "target-missing", "empty"),
    ],
)
def test_an_adapter_that_cannot_be_is_refused(settings, slug, said):
    with pytest.raises(ConfigError) as caught:
        Lora(**settings)
    assert caught.value.slug == slug
    assert " ".join(said.split()) in " ".join(str(caught.value).split())


def test_a_begins_with_the_variance_two_over_inputs_and_b_with_zeros(make_trainer):
    drawn = small(np.random.default_rng(0), (40, 3000))
    assert drawn.std() == pytest.approx(math.sqrt(2 / 3000), rel=0.01)  # 1/sqrt(2 n) is 0.2 %
    state = make_trainer(adapter=EVERY).state()["model"]
    pairs = {n: a for n, a in state.items() if n.startswith("lora")}
    assert set(pairs) == set(EVERY.shapes(make_trainer().settings.model))
    assert all(array.any() == name.startswith("lora_a") for name, array in pairs.items())


@pytest.mark.parametrize("backend", ["reference", "numpy", "python"])
def test_a_new_adapter_changes_nothing(make_trainer, six_sequences, backend):
    plain = make_trainer(6, backend).step(*six_sequences, 0.0).loss
    assert make_trainer(6, backend, adapter=Lora()).step(*six_sequences, 0.0).loss == plain


@pytest.mark.parametrize("backend", ["reference", "numpy", "python"])
def test_training_moves_the_pairs_alone_and_lowers_the_loss(make_trainer, six_sequences, backend):
    trainer = make_trainer(6, backend, optimizer=ADAMW, adapter=EVERY)
    before, pairs = hashes(trainer), trainer.state()["model"]
    losses = [trainer.step(*six_sequences, LR).loss for _ in range(12)]
    after = trainer.state()["model"]
    assert hashes(trainer) == before and len(before) == 16
    assert losses[-1] < losses[0] - 0.05  # the frozen head is small: measured 0.11
    assert all((after[n] != pairs[n]).any() for n in after if n.startswith("lora"))


def test_the_same_hashes_tell_when_a_base_weight_moves(make_trainer, six_sequences):
    trainer = make_trainer(6)
    before = hashes(trainer)
    trainer.step(*six_sequences, LR)
    assert hashes(trainer) != before


def test_frozen_weights_have_neither_gradient_nor_moments(make_trainer):
    trainer = make_trainer(optimizer=ADAMW, adapter=Lora())
    trained = trainer.plan.arena_bytes
    assert trained["gradient"] == trained["m"] == trained["v"] == 4 * 4 * 64  # pairs of 4 x 16
    assert set(trainer.parameters.to_host("m")) == set(Lora().shapes(trainer.settings.model))
    assert set(trainer.plan.calls.gradients) == set(Lora().shapes(trainer.settings.model))


def test_pairs_do_not_decay_unless_everything_does(make_trainer, six_sequences):
    def size(decay):
        optimizer = {"name": "sgd", "weight_decay": 0.5, "decay": decay}
        trainer = make_trainer(6, optimizer=optimizer, adapter=Lora())
        fill(trainer)
        trainer.step(*six_sequences, LR)
        return sum(float((a**2).sum()) for n, a in trainer.state()["model"].items() if "lora" in n)

    assert size("matrices") == size("none") > size("all")


@pytest.mark.parametrize("lora", [EVERY, WHOLE], ids=str)
@pytest.mark.parametrize("backend", ["reference", "numpy", "python"])
def test_an_adapted_model_is_the_model_with_its_deltas_in_the_weights(
    make_trainer, six_sequences, backend, lora
):
    adapted, plain = make_trainer(6, backend, adapter=lora), make_trainer(6, backend)
    with_deltas(plain, fill(adapted), lora)
    results = []
    for trainer in (adapted, plain):
        executor = trainer.another(6, 8, head="logits")
        executor.write("tokens", six_sequences[0])
        executor.forward()
        results.append(executor.read())
    logits, expected = results
    assert np.abs(logits - expected).max() < 1e-5 * np.abs(expected).max()
    assert np.abs(expected).max() > 0.1


@pytest.mark.parametrize("lora", [EVERY, WHOLE], ids=str)
@pytest.mark.parametrize("backend", ["reference", "numpy", "python"])
def test_a_pair_s_gradient_follows_from_that_of_the_weight_it_stands_for(
    make_trainer, six_sequences, backend, lora
):
    """By the chain rule: W' = W + s·b·a, so da = s·bᵀ·dW' and db = s·dW'·aᵀ."""
    adapted, plain = make_trainer(6, backend, adapter=lora), make_trainer(6, backend)
    arrays = fill(adapted)
    with_deltas(plain, arrays, lora)
    for trainer in (adapted, plain):
        trainer.step(*six_sequences, 0.0)
    found, whole = (t.parameters.to_host("gradient") for t in (adapted, plain))
    model = plain.settings.model
    for target in lora.targets:
        names = pair_names(target, 0)
        a, b = (arrays[name] for name in names)
        first, count = TARGETS[target].rows(model)
        dweight = whole[f"{TARGETS[target].kind}w.0"][first : first + count].astype(np.float64)
        scale = lora.alpha / lora.rank
        for name, expected in zip(
            names, (scale * b.T @ dweight, scale * dweight @ a.T), strict=True
        ):
            error = np.linalg.norm(found[name] - expected) / np.linalg.norm(expected)
            assert error < 1e-5, name  # float32 between ops; measured 1e-6 at most


def test_micro_batches_of_an_adapter_add_up(make_trainer, six_sequences):
    whole = make_trainer(6, "numpy", adapter=EVERY)
    parts = make_trainer(2, "numpy", adapter=EVERY, gradient_accumulation=3)
    for trainer in (whole, parts):
        fill(trainer)
        trainer.step(*six_sequences, LR)
    one, many = whole.state()["model"], parts.state()["model"]
    assert max(np.abs(one[n] - many[n]).max() for n in one) < 1e-6


def test_a_restored_adapter_goes_on_bit_for_bit(make_trainer, six_sequences):
    settings = {"optimizer": ADAMW, "adapter": EVERY}
    straight, first, second = (make_trainer(6, "numpy", **settings) for _ in range(3))
    losses = [straight.step(*six_sequences, LR).loss for _ in range(6)]
    begun = [first.step(*six_sequences, LR).loss for _ in range(3)]
    second.restore(first.state(), updates=3)
    assert losses == begun + [second.step(*six_sequences, LR).loss for _ in range(3)]
    one, other = straight.state()["model"], second.state()["model"]
    assert all(one[name].tobytes() == other[name].tobytes() for name in one)


def test_the_bf16_step_of_an_adapter_is_near_that_of_float32(make_trainer, six_sequences):
    from harness.contract.precision import Precision

    exact = make_trainer(6, "numpy", adapter=EVERY)
    rounded = make_trainer(6, "numpy", adapter=EVERY, precision=Precision("bf16"))
    for trainer in (exact, rounded):
        fill(trainer)
    losses = [trainer.step(*six_sequences, 0.0).loss for trainer in (exact, rounded)]
    assert losses[0] != losses[1] and losses[1] == pytest.approx(losses[0], rel=2e-2)


@pytest.mark.parametrize(
    ("change", "error", "slug"),
    [
        (lambda a: a[:, :-1], CheckpointError, "adapter-misfit"),
        (lambda a: a * np.nan, NumericsError, "adapter-not-finite"),
        (lambda a: a + np.inf, NumericsError, "adapter-not-finite"),
    ],
)
def test_arrays_that_do_not_fit_or_are_not_finite_are_named(change, error, slug):
    model = dataclasses.replace(GPT2_124M, layers=1, channels=24)
    arrays = {n: np.zeros(s, np.float32) for n, s in EVERY.shapes(model).items()}
    check_pairs(EVERY, model, arrays.__getitem__)
    arrays["lora_b.v.0"] = change(arrays["lora_b.v.0"])
    with pytest.raises(HarnessError) as caught:
        check_pairs(EVERY, model, arrays.__getitem__)
    assert isinstance(caught.value, error) and caught.value.slug == slug
    assert "lora_b.v.0" in caught.value.headline
