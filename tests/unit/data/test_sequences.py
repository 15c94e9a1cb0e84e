"""The stream of training sequences is a pure function of its position."""

import numpy as np
import pytest

from harness.data import Sequences
from harness.errors import DataError

T = 8
TOKENS = np.arange(20 * T + 5, dtype=np.int32)  # 20 sequences, and 4 tokens that are never a target


def test_a_sequence_is_a_stretch_of_the_tokens_and_its_successors():
    stream = Sequences(TOKENS, T, seed=1)
    x_BT, y_BT = stream.take(0, 6)
    assert x_BT.shape == y_BT.shape == (6, T)
    assert x_BT.dtype == y_BT.dtype == np.int32
    assert x_BT.flags.c_contiguous and y_BT.flags.c_contiguous
    assert (x_BT[:, 0] % T == 0).all()
    assert (x_BT == x_BT[:, :1] + np.arange(T)).all()
    assert (y_BT == x_BT + 1).all()


@pytest.mark.parametrize("shuffle", [True, False])
def test_an_epoch_visits_every_sequence_once(shuffle):
    stream = Sequences(TOKENS, T, seed=1, shuffle=shuffle)
    assert stream.per_epoch == 20
    for epoch in range(3):
        x_BT, _ = stream.take(epoch * 20, 20)
        assert sorted(x_BT[:, 0] // T) == list(range(20))


def test_the_same_seed_gives_the_same_batches_and_another_seed_others():
    first, _ = Sequences(TOKENS, T, seed=1).take(3, 30)
    again, _ = Sequences(TOKENS, T, seed=1).take(3, 30)
    other, _ = Sequences(TOKENS, T, seed=2).take(3, 30)
    assert (first == again).all()
    assert (first != other).any()


def test_epochs_are_ordered_differently():
    stream = Sequences(TOKENS, T, seed=1)
    assert (stream.take(0, 20)[0] != stream.take(20, 20)[0]).any()


def test_the_order_is_that_of_philox_with_seed_and_epoch_as_its_key():
    for epoch in (0, 1, 7):
        x_BT, _ = Sequences(TOKENS, T, seed=5).take(epoch * 20, 20)
        generator = np.random.Generator(np.random.Philox(key=[5, epoch]))
        assert (x_BT[:, 0] // T == generator.permutation(20)).all()


def test_the_order_is_the_same_on_every_machine_and_numpy():
    x_BT, _ = Sequences(TOKENS, T, seed=42).take(0, 20)
    assert (x_BT[:, 0] // T).tolist() == [
        17,
        13,
        1,
        5,
        2,
        8,
        6,
        0,
        11,
        15,
        10,
        16,
        4,
        12,
        9,
        18,
        19,
        7,
        3,
        14,
    ]


@pytest.mark.parametrize("B", [1, 3, 7, 20, 33])
def test_k_takes_of_b_are_one_take_of_k_times_b(B):
    whole_x, whole_y = Sequences(TOKENS, T, seed=3).take(11, 5 * B)
    stream = Sequences(TOKENS, T, seed=3)
    parts = [stream.take(11 + k * B, B) for k in range(5)]
    assert (np.concatenate([x for x, _ in parts]) == whole_x).all()
    assert (np.concatenate([y for _, y in parts]) == whole_y).all()


def test_what_was_taken_before_does_not_matter():
    stream = Sequences(TOKENS, T, seed=3)
    expected = stream.take(45, 4)[0]
    stream.take(0, 20)
    assert (stream.take(45, 4)[0] == expected).all()
    assert (Sequences(TOKENS, T, seed=3).take(45, 4)[0] == expected).all()


def test_without_shuffle_it_walks_in_order_over_and_over():
    x_BT, _ = Sequences(TOKENS, T, seed=1, shuffle=False).take(18, 4)
    assert (x_BT[:, 0] // T).tolist() == [18, 19, 0, 1]


def test_it_writes_into_given_buffers():
    stream = Sequences(TOKENS.astype(np.uint16), T, seed=1)
    out = np.full((4, T), -1, np.int32), np.full((4, T), -1, np.int32)
    x_BT, y_BT = stream.take(2, 4, out=out)
    assert x_BT is out[0] and y_BT is out[1]
    for given, fresh in zip(out, stream.take(2, 4), strict=True):
        assert (given == fresh).all()


@pytest.mark.parametrize("shape", [(3, T), (4, T + 1), (4 * T,)])
def test_buffers_of_another_shape_are_refused(shape):
    out = np.empty(shape, np.int32), np.empty(shape, np.int32)
    with pytest.raises(AssertionError, match="shape"):
        Sequences(TOKENS, T, seed=1).take(0, 4, out=out)


def test_the_largest_seed_is_a_seed():
    x_BT, _ = Sequences(TOKENS, T, seed=2**64 - 1).take(0, 20)
    assert sorted(x_BT[:, 0] // T) == list(range(20))


@pytest.mark.parametrize(("count", "per_epoch"), [(T + 1, 1), (2 * T, 1), (2 * T + 1, 2)])
def test_a_sequence_needs_its_last_target(count, per_epoch):
    stream = Sequences(TOKENS[:count], T, seed=1)
    assert stream.per_epoch == per_epoch
    assert stream.take(0, per_epoch)[1].max() == per_epoch * T


@pytest.mark.parametrize("count", [0, 1, T])
def test_fewer_tokens_than_one_sequence_are_refused(count):
    with pytest.raises(DataError, match="too few tokens"):
        Sequences(TOKENS[:count], T, seed=1)
