"""Weights rounded at random: unbiased, the same bits by every way, and again after a restart."""

import ml_dtypes
import numpy as np
import pytest

from harness.contract.precision import Precision
from harness.errors import ConfigError, PluginError
from harness.ops.stochastic_cast import round_at_random
from harness.plugins import all_ops, load
from harness.training.optimizer import MASTER

BF16 = np.dtype(ml_dtypes.bfloat16)
STOCHASTIC = Precision("bf16", rounding="stochastic")
ADAMW = {"name": "adamw"}
SETTINGS = (0.9, 0.95, 1e-8, 0.1)


@pytest.fixture
def trained(make_trainer, six_sequences):
    """A trainer after some steps of AdamW on weights that are rounded at random."""

    def make(steps=3, **changes):
        chosen = {"backend": "numpy", "optimizer": ADAMW, "precision": STOCHASTIC, **changes}
        trainer = make_trainer(**chosen)
        for _ in range(steps):
            step(trainer, six_sequences)
        return trainer

    return make


def step(trainer, batch):
    x_BT, y_BT = batch
    return trainer.step(x_BT[:2], y_BT[:2], 0.01)


def low(trainer):
    size = trainer.parameters.layout.total
    return trainer.parameters.flat("bf16_weights", 0, size).view(np.uint16).copy()


def expected_low(trainer):
    """What the formula makes of the masters, with the key of the seed and of the updates made."""
    masters = trainer.parameters.flat("parameter", 0, trainer.parameters.layout.total)
    key = np.array(trainer.parameters.key)
    assert key[1] == trainer.optimizer.t
    return round_at_random(masters, key, 0).astype(BF16).view(np.uint16)


# -- the rounding itself ----------------------------------------------------------------------


@pytest.mark.parametrize("backend", ["numpy", "numba"])
def test_the_mean_of_many_roundings_is_the_number(backend):
    kernel = kernels(backend)["stochastic_cast"]
    draws = 1 << 16
    for x in (1.0017, -3.1415, 1e-3, 6e-39):
        x_P = np.full(draws, x, np.float32)
        out_P = np.empty(draws, np.float32)
        kernel(out_P, x_P, np.array([3, 4], np.int32), 0)
        place = np.ptp(out_P)
        assert len(set(out_P.tolist())) == 2
        # Four standard deviations of the mean of so many draws, each of at most half a place.
        assert abs(out_P.mean(dtype=np.float64) - np.float32(x)) < 4 * place / 2 / draws**0.5


def kernels(name):
    """Hook -> function of a backend; skipped where it cannot be had here."""
    try:
        backend = load(name, all_ops())
    except PluginError as error:
        pytest.skip(f"backend {name} cannot be had here: {error.headline}")
    return backend.functions


def as_given(backend, *buffers):
    """The buffers as a backend takes them."""
    if backend != "python":
        return buffers
    return [None if buffer is None else buffer.data for buffer in buffers]


@pytest.mark.parametrize("backend", ["numpy", "numba", "python", "reference"])
def test_no_finite_number_becomes_infinite_and_infinity_and_nan_stay(backend):
    x_P = np.array([3.4e38, -3.4e38, np.inf, -np.inf, np.nan, 0.0, -0.0, 1.0] * 64, np.float32)
    out_P = np.empty_like(x_P)
    kernel = kernels(backend)["stochastic_cast"]
    with np.errstate(all="ignore"):
        kernel(*as_given(backend, out_P, x_P, np.array([1, 2], np.int32)), 0)
    largest = float(ml_dtypes.finfo(BF16).max)
    assert (np.abs(out_P[:2]) <= largest).all() and np.isfinite(out_P[0::8]).all()
    assert (out_P[2::8] == np.inf).all() and (out_P[3::8] == -np.inf).all()
    assert np.isnan(out_P[4::8]).all() and (out_P[7::8] == 1).all()
    assert not np.signbit(out_P[5::8]).any() and np.signbit(out_P[6::8]).all()


# -- fused and unfused ------------------------------------------------------------------------


@pytest.mark.parametrize("key", [None, np.array([11, -7], np.int32)])
@pytest.mark.parametrize("backend", ["numpy", "numba"])
@pytest.mark.parametrize("P", [5, 4099, 20_011])
def test_adamw_master_is_adamw_and_then_the_cast(backend, P, key):
    found = kernels(backend)
    rng = np.random.default_rng(P)
    state = [rng.normal(size=P), rng.normal(size=P) * 0.1, rng.random(P)]
    one = [array.astype(np.float32) for array in state]
    other = [array.copy() for array in one]
    grad = rng.normal(size=P).astype(np.float32)
    scalars = [np.array(x, np.float32) for x in ([1e-3], [0.1, 0.05], [0.5])]
    low_P, wanted_P = np.empty(P, BF16), np.empty(P, BF16)
    adapt = found.get("adapt", lambda buffer: buffer)
    found[MASTER](one[0], adapt(low_P), *one[1:], grad, *scalars, key, *SETTINGS, 64)
    found["adamw"](*other, grad, *scalars, *SETTINGS)
    if key is None:
        found["cast"](adapt(wanted_P), other[0])
    else:
        found["stochastic_cast"](adapt(wanted_P), other[0], key, 64)
    for a, b in zip(one, other, strict=True):
        np.testing.assert_array_equal(a.view(np.uint32), b.view(np.uint32))
    np.testing.assert_array_equal(low_P.view(np.uint16), wanted_P.view(np.uint16))


@pytest.mark.parametrize("backend", ["numpy", "numba", "python", "reference"])
@pytest.mark.parametrize("key", [None, np.array([11, -7], np.int32)])
def test_a_clip_of_nan_changes_nothing_and_the_low_weights_are_written(backend, key):
    P = 70
    rng = np.random.default_rng(0)
    state = [rng.random(P).astype(np.float32) for _ in range(3)]
    before = [array.copy() for array in state]
    low_P = np.full(P, np.nan, np.float32)
    grad = rng.normal(size=P).astype(np.float32)
    scalars = [np.array(x, np.float32) for x in ([1e-3], [0.1, 0.05], [np.nan])]
    buffers = as_given(backend, state[0], low_P, *state[1:], grad, *scalars, key)
    with np.errstate(invalid="ignore"):
        kernels(backend)[MASTER](*buffers, *SETTINGS, 0)
    for a, b in zip(state, before, strict=True):
        np.testing.assert_array_equal(a, b)
    wanted_P = before[0] if key is None else round_at_random(before[0], key, 0)
    np.testing.assert_array_equal(low_P, wanted_P)


def test_fused_and_unfused_training_give_the_same_bits(trained, monkeypatch):
    fused = trained()
    assert fused.plan.optimizer_choices[0].hook == MASTER
    for module in ("harness.training.optimizer", "harness.training.training_plan"):
        monkeypatch.setattr(f"{module}.update_choice", lambda s, d, low: d.choose(s.op))
    plain = trained()
    assert plain.plan.optimizer_choices[0].hook == "adamw"
    np.testing.assert_array_equal(low(fused), low(plain))
    for name, array in fused.parameters.to_host().items():
        np.testing.assert_array_equal(array, plain.parameters.read(name), name)


# -- a run ------------------------------------------------------------------------------------


def test_the_key_is_the_seeds_and_the_updates(trained):
    trainer = trained(steps=0)
    np.testing.assert_array_equal(low(trainer), expected_low(trainer))
    first = trainer.parameters.key[0].copy()
    assert trained(steps=0, seed=1).parameters.key[0] != first
    again = trained(steps=3)
    assert tuple(again.parameters.key) == (first, 3)
    np.testing.assert_array_equal(low(again), expected_low(again))


@pytest.mark.parametrize("optimizer", [ADAMW, {"name": "sgd", "weight_decay": 0.0}])
def test_a_run_that_is_resumed_rounds_as_one_that_was_not(trained, six_sequences, optimizer):
    whole = trained(steps=4, optimizer=optimizer)
    half = trained(steps=2, optimizer=optimizer)
    state = half.state()
    later = trained(steps=1, optimizer=optimizer)  # was somewhere else before
    later.restore(state, updates=2)
    np.testing.assert_array_equal(low(later), low(half))
    losses = [step(later, six_sequences).loss for _ in range(2)]
    assert losses == [step(half, six_sequences).loss for _ in range(2)]
    np.testing.assert_array_equal(low(later), low(whole))


def test_rounding_at_random_needs_something_to_round():
    with pytest.raises(ConfigError, match="no weight is rounded"):
        Precision("fp32", rounding="stochastic")
    Precision("fp32", {"matmul": "bf16"}, rounding="stochastic")
    with pytest.raises(ConfigError, match="rounding=random is unknown"):
        Precision("bf16", rounding="random")
