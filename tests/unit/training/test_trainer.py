"""A step: what micro-batches, clipping, skipping and restoring do to the weights."""

import math

import numpy as np
import pytest

from harness.errors import CheckpointError, NumericsError, ResourceError
from harness.planning.memory_budget import MemoryNeed

LR = 0.05


def weights(trainer):
    return {name: array.astype(np.float64) for name, array in trainer.state()["model"].items()}


def difference(first, second):
    return max(np.abs(first[name] - second[name]).max() for name in first)


def test_initial_weights_follow_the_seed_alone(make_trainer):
    first, again, other = (weights(make_trainer(seed=seed)) for seed in (1, 1, 2))
    assert difference(first, again) == 0 and difference(first, other) > 0.01


@pytest.mark.parametrize("backend", ["reference", "numpy"])
def test_k_micro_batches_equal_one_k_times_as_large(make_trainer, six_sequences, backend):
    x_BT, y_BT = six_sequences
    whole, parts = (
        make_trainer(6, backend),
        make_trainer(2, backend, gradient_accumulation=3),
    )
    for _ in range(3):
        one, many = whole.step(x_BT, y_BT, LR), parts.step(x_BT, y_BT, LR)
        assert one.loss == pytest.approx(many.loss, rel=1e-6)
    assert difference(weights(whole), weights(parts)) < 1e-6
    moved = difference(weights(whole), weights(make_trainer(6, backend)))
    assert moved > 1e-3  # what the comparison above would have missed


def test_the_loss_of_the_first_step_is_that_of_guessing(make_trainer, six_sequences):
    assert make_trainer(6).step(*six_sequences, LR).loss == pytest.approx(math.log(40), abs=0.1)


def test_the_gradient_norm_is_of_all_gradients_together(make_trainer, six_sequences):
    trainer = make_trainer(6, clip_norm=1e9)
    norm = trainer.step(*six_sequences, LR).grad_norm
    gradients = trainer.parameters.to_host("gradient").values()
    expected = math.sqrt(sum((g.astype(np.float64) ** 2).sum() for g in gradients))
    assert norm == pytest.approx(expected, rel=1e-6)


def test_clipping_shortens_the_step_to_the_norm_and_keeps_its_direction(
    make_trainer, six_sequences
):
    before = weights(make_trainer(6))
    free, clipped = make_trainer(6), make_trainer(6, clip_norm=0.01)
    free.step(*six_sequences, LR)
    norm = clipped.step(*six_sequences, LR).grad_norm
    steps = [{n: weights(t)[n] - before[n] for n in before} for t in (free, clipped)]
    length = math.sqrt(sum((step**2).sum() for step in steps[1].values()))
    assert norm > 0.01 and length == pytest.approx(LR * 0.01, rel=1e-3)
    for name in before:
        assert steps[1][name] == pytest.approx(steps[0][name] * 0.01 / norm, abs=1e-7)


def test_a_gradient_below_the_norm_is_not_clipped(make_trainer, six_sequences):
    free, clipped = make_trainer(6), make_trainer(6, clip_norm=1e6)
    free.step(*six_sequences, LR)
    clipped.step(*six_sequences, LR)
    assert difference(weights(free), weights(clipped)) == 0


def test_without_clipping_no_norm_is_reported(make_trainer, six_sequences):
    assert make_trainer(6).step(*six_sequences, LR).grad_norm is None


def test_a_summed_gradient_is_as_many_times_larger_as_there_are_targets(
    make_trainer, six_sequences
):
    mean = make_trainer(6, clip_norm=1e9).step(*six_sequences, LR).grad_norm
    total = make_trainer(6, clip_norm=1e9, loss_gradient="sum").step(*six_sequences, LR).grad_norm
    assert total == pytest.approx(mean * (six_sequences[1] >= 0).sum(), rel=1e-5)


def test_targets_of_minus_one_count_nowhere(make_trainer, six_sequences):
    """A sequence without targets adds nothing to a step."""
    x_BT, y_BT = (array.copy() for array in six_sequences)
    y_BT[4:] = -1
    with_them, without = make_trainer(6), make_trainer(4)
    assert with_them.step(x_BT, y_BT, LR).loss == pytest.approx(
        without.step(x_BT[:4], y_BT[:4], LR).loss, rel=1e-6
    )
    assert difference(weights(with_them), weights(without)) < 1e-6


def test_the_rows_that_pad_the_vocabulary_stay_zero(make_trainer, six_sequences):
    trainer = make_trainer(6, optimizer={"name": "adamw"})
    for _ in range(3):
        trainer.step(*six_sequences, LR)
    assert not weights(trainer)["wte"][40:].any()


def test_a_step_that_is_not_finite_changes_nothing_and_is_an_error(make_trainer, six_sequences):
    trainer = make_trainer(6, clip_norm=1.0)
    trainer.parameters.view("parameter", "lnfw")[0] = np.nan
    before = weights(trainer)
    with pytest.raises(NumericsError, match=r"step 1 is not finite(.|\n)*of reference"):
        trainer.step(*six_sequences, LR)
    after = weights(trainer)
    assert all(np.array_equal(before[n], after[n], equal_nan=True) for n in before)


def test_a_step_that_is_skipped_changes_nothing_and_is_not_counted(make_trainer, six_sequences):
    trainer = make_trainer(6, clip_norm=1.0, on_nonfinite="skip")
    trainer.parameters.view("parameter", "lnfb")[0] = np.nan
    before = weights(trainer)
    assert trainer.step(*six_sequences, LR).skipped
    assert (
        difference(
            {n: np.nan_to_num(a) for n, a in before.items()},
            {n: np.nan_to_num(a) for n, a in weights(trainer).items()},
        )
        == 0
    )
    assert trainer.optimizer.t == 0


@pytest.mark.parametrize(
    "optimizer", [{"name": "adamw"}, {"name": "sgd", "momentum": 0.9, "weight_decay": 0.0}]
)
def test_a_restored_trainer_goes_on_as_the_one_it_was_taken_from(
    make_trainer, six_sequences, optimizer
):
    first, second = (
        make_trainer(6, optimizer=optimizer),
        make_trainer(6, optimizer=optimizer, seed=9),
    )
    first.step(*six_sequences, LR)
    second.restore(first.state(), updates=1)
    for trainer in (first, second):
        trainer.step(*six_sequences, LR)
    for group, tensors in first.state().items():
        for name, array in tensors.items():
            assert np.array_equal(array, second.state()[group][name]), (group, name)


def test_a_state_of_another_shape_is_refused(make_trainer):
    trainer = make_trainer()
    state = trainer.state()
    state["model"]["lnfw"] = np.zeros(3, np.float32)
    with pytest.raises(CheckpointError, match="lnfw"):
        trainer.restore(state, updates=0)


def test_the_mean_loss_is_over_all_targets_of_all_batches(make_trainer, six_sequences):
    x_BT, y_BT = six_sequences
    trainer = make_trainer(6)
    by_twos = trainer.mean_loss(
        trainer.another(2, 8), ((x_BT[i : i + 2], y_BT[i : i + 2]) for i in (0, 2, 4))
    )
    assert by_twos == pytest.approx(trainer.step(x_BT, y_BT, LR).loss, rel=1e-6)


def test_what_another_executor_needs_is_added_to_what_is_taken(make_trainer, monkeypatch):
    trainer = make_trainer()
    trainer.memory.available = trainer.memory.nbytes
    with pytest.raises(ResourceError, match="activations of a forward of 2 x 8 tokens"):
        trainer.another(2, 8)


def test_the_need_is_at_least_what_was_allocated(make_trainer):
    trainer = make_trainer(6)
    arenas = sum(arena.nbytes for arena in trainer.executor._arenas.values())
    others = sum(buffer.nbytes for buffer in trainer.executor._persistent.values())
    assert trainer.memory.nbytes >= trainer.parameters.nbytes + arenas
    # Beside those there are the inputs, rounded up to the alignment of a buffer.
    assert trainer.memory.nbytes >= trainer.parameters.nbytes + arenas + others - 128 * 4


def test_needs_that_fit_exactly_are_met():
    need = MemoryNeed(lambda needed, available: [], available=10)
    need.add("a thing", 10)
    need.check()
    need.add("another", 1)
    with pytest.raises(ResourceError, match="another"):
        need.check()
