"""The random model that `harness verify write` stores."""

import numpy as np

from harness.models.gpt2 import GPT2
from harness.models.kinds import tensor_shapes
from harness.verify.seeded_model import SeededModel

MODEL = GPT2(layers=2, heads=2, channels=16, positions=12, vocab_size=100)


def _read(source, name):
    out = np.full(tensor_shapes(source.model)[name], np.nan, np.float32)
    source.read_into(name, out)
    return out


def test_a_tensor_is_the_same_whatever_was_read_before_it():
    first, second = SeededModel(MODEL, 7), SeededModel(MODEL, 7)
    names = list(tensor_shapes(MODEL))
    forwards = {name: _read(first, name) for name in names}
    backwards = {name: _read(second, name) for name in reversed(names)}
    for name in names:
        assert forwards[name].tobytes() == backwards[name].tobytes()


def test_another_seed_and_another_layer_are_other_numbers():
    assert not np.array_equal(
        _read(SeededModel(MODEL, 0), "fcw.0"), _read(SeededModel(MODEL, 1), "fcw.0")
    )
    assert not np.array_equal(
        _read(SeededModel(MODEL, 0), "fcw.0"), _read(SeededModel(MODEL, 0), "fcw.1")
    )


def test_nothing_is_zero_or_one_but_the_padding_of_the_vocabulary():
    source = SeededModel(MODEL, 3)
    for name in tensor_shapes(MODEL):
        values = _read(source, name)
        if name == "wte":
            assert not values[100:].any()
            values = values[:100]
        assert np.isfinite(values).all(), name
        assert (values != 0).all() and (values != 1).all(), name
        assert values.std() > 0.1, name


def test_every_target_is_the_token_that_follows():
    x_BT, y_BT = SeededModel(MODEL, 3).tokens(3, 9)
    assert x_BT.shape == y_BT.shape == (3, 9)
    np.testing.assert_array_equal(x_BT[:, 1:], y_BT[:, :-1])
    assert x_BT.min() >= 0 and max(x_BT.max(), y_BT.max()) < 100
    assert x_BT.dtype == np.int32
