"""The weights that ops read in bfloat16: one arena for all executors, never those of an earlier step."""

import ml_dtypes
import numpy as np
import pytest

from harness.contract.precision import BFLOAT16, FLOAT32, Precision
from harness.models.lora import Lora
from harness.planning.bf16_weights import FROZEN, TRAINED
from harness.planning.memory_budget import host_bytes
from harness.training.optimizer import MASTER

BF16 = Precision("bf16")
OPTIMIZERS = {"adamw": {"name": "adamw"}, "sgd": {"name": "sgd", "weight_decay": 0.0}}


@pytest.fixture
def trainer(make_trainer):
    return make_trainer(backend="numpy", optimizer=OPTIMIZERS["adamw"], precision=BF16)


def step(trainer, batch):
    x_BT, y_BT = batch
    return trainer.step(x_BT[:2], y_BT[:2], 0.05)


def masters_and_low(trainer):
    layout = trainer.parameters.layout
    return [
        trainer.parameters.flat(arena, 0, layout.total) for arena in ("parameter", "bf16_weights")
    ]


def assert_fresh(trainer):
    masters, low = masters_and_low(trainer)
    rounded = masters.astype(BFLOAT16)
    np.testing.assert_array_equal(low.view(np.uint16), rounded.view(np.uint16))


def test_one_call_makes_them_all_and_it_is_listed(trainer):
    (cast,) = trainer.plan.calls.renewals
    assert trainer.plan.calls.refresh == [cast] and cast.call.dims == {
        "P": trainer.plan.layout.total
    }
    assert cast.moved_bytes == 6 * trainer.plan.layout.total
    assert trainer.plan.optimizer_choices[0].hook == MASTER


def test_the_arena_is_counted_once(trainer, make_trainer):
    assert sum(trainer.plan.arena_bytes.values()) == trainer.parameters.nbytes
    assert tuple(trainer.plan.arena_bytes) == trainer.parameters.arenas
    assert trainer.plan.arena_bytes["bf16_weights"] == 2 * trainer.plan.layout.total
    assert trainer.plan.peak_bytes["weights in bfloat16"] == 2 * trainer.plan.layout.total
    needed = trainer.memory.nbytes
    validator = trainer.another(2, 8)
    assert trainer.memory.nbytes - needed == host_bytes(validator.plan)
    plain = make_trainer(backend="numpy", optimizer=OPTIMIZERS["adamw"])
    assert "bf16_weights" not in plain.plan.arena_bytes and plain.plan.calls.casts == []


def test_every_parameter_begins_at_a_multiple_of_128_bytes_there_too(trainer):
    for name in trainer.plan.layout.offsets:
        assert trainer.parameters.view("bf16_weights", name).ctypes.data % 128 == 0, name


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_they_are_those_of_the_masters_after_every_step(make_trainer, six_sequences, optimizer):
    trainer = make_trainer(backend="numpy", optimizer=OPTIMIZERS[optimizer], precision=BF16)
    assert_fresh(trainer)
    before = masters_and_low(trainer)[1].copy()
    for _ in range(2):
        step(trainer, six_sequences)
        assert_fresh(trainer)
    assert not np.array_equal(masters_and_low(trainer)[1], before)


def test_the_optimizer_that_writes_them_leaves_nothing_to_the_refresh(trainer, six_sequences):
    calls = counted(trainer.executor)
    step(trainer, six_sequences)
    assert calls == [] and not trainer.parameters.is_stale(TRAINED)


def test_after_another_optimizer_the_trained_weights_alone_are_cast(make_trainer, six_sequences):
    trainer = make_trainer(
        backend="numpy",
        optimizer=OPTIMIZERS["sgd"],
        precision=BF16,
        adapter=Lora(2, 4.0, ("q", "v")),
    )
    assert [s.views[0].version.tensor.name for s in trainer.plan.calls.renewals] == [
        TRAINED,
        FROZEN,
    ]
    calls = counted(trainer.executor)
    for _ in range(2):
        step(trainer, six_sequences)
    assert calls == [TRAINED, TRAINED]
    assert_fresh(trainer)
    trainer.restore(trainer.state(), updates=2)
    assert calls[2:] == [TRAINED, FROZEN]


def counted(executor):
    """The parts that an executor's refresh makes from now on, in a list that grows."""
    calls = []
    names = [step.views[0].version.tensor.name for step in executor.plan.refresh]

    def noted(name, call):
        return lambda: (calls.append(name), call())

    executor._refresh = [noted(n, c) for n, c in zip(names, executor._refresh, strict=True)]
    return calls


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_validation_and_samples_see_the_weights_of_the_last_step(
    make_trainer, six_sequences, optimizer
):
    chosen = {"backend": "numpy", "optimizer": OPTIMIZERS[optimizer], "precision": BF16}
    trainer = make_trainer(**chosen)
    validator, decoder = trainer.another(2, 8), trainer.decoder(1, 6)
    seen = [six_sequences[0][:2], six_sequences[1][:2]]
    start = trainer.mean_loss(validator, [seen]), decoder.start([[1, 2]]).copy()
    for _ in range(2):
        step(trainer, six_sequences)
    fresh = make_trainer(**chosen)
    fresh.restore(trainer.state(), updates=2)
    loss = trainer.mean_loss(validator, [seen])
    assert loss == fresh.mean_loss(fresh.another(2, 8), [seen]) != start[0]
    logits = decoder.start([[1, 2]])
    np.testing.assert_array_equal(logits, fresh.decoder(1, 6).start([[1, 2]]))
    assert not np.array_equal(logits, start[1])


def test_what_is_written_from_outside_is_read_after_a_refresh(trainer):
    trainer.parameters.from_host(
        {name: array + 1 for name, array in trainer.parameters.to_host().items()}
    )
    assert trainer.parameters.is_stale(TRAINED)
    trainer.executor.refresh()
    low = trainer.parameters.view("bf16_weights", "lnfb")
    assert (low.astype(np.float32) == 1).all()


def test_an_op_in_fp32_reads_the_masters(make_trainer):
    precision = Precision("bf16", {"embedding": "fp32"})
    trainer = make_trainer(backend="numpy", precision=precision)
    dtypes = {}
    for made in trainer.plan.calls.forward:
        if made.hook in ("embedding_forward", "matmul_cross_entropy_forward", "matmul_forward"):
            for view in made.views:
                if view.version.tensor.name == "wte":
                    dtypes[made.hook] = view.version.dtype
                    buffer = trainer.executor._buffer(view)
                    arena = "parameter" if view.version.dtype == FLOAT32 else "bf16_weights"
                    assert np.shares_memory(buffer, trainer.parameters.view(arena, "wte"))
    assert dtypes.pop("embedding_forward") == FLOAT32
    assert set(dtypes.values()) == {np.dtype(ml_dtypes.bfloat16)}
