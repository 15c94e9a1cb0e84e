"""A rank updates its shard of the arena alone: together the shards are the arena, bit for bit."""

import ml_dtypes
import numpy as np
import pytest

from harness.errors import ConfigError
from harness.planning.layout import NUMBERS, Layout
from harness.plugins import all_ops, load
from harness.training.shards import Span, groups, shard, shard_size

RANKS = [1, 2, 3, 7, 8]
LAYOUT = Layout({}, {}, decayed=5 * NUMBERS, trained=13 * NUMBERS, total=20 * NUMBERS)


@pytest.mark.parametrize("ranks", RANKS)
@pytest.mark.parametrize("decay", ["matrices", "all", "none"])
def test_the_shards_cover_what_is_trained_once(ranks, decay):
    spans, size = groups(LAYOUT, decay, 0.1), shard_size(LAYOUT, ranks)
    count, decayed = np.zeros(LAYOUT.total, int), np.zeros(LAYOUT.total)
    for rank in range(ranks):
        for span in shard(spans, size, rank):
            assert rank * size <= span.start < span.stop <= (rank + 1) * size
            count[span.start : span.stop] += 1
            decayed[span.start : span.stop] = span.weight_decay
    assert (count[: LAYOUT.trained] == 1).all() and not count[LAYOUT.trained :].any()
    ends = {"matrices": LAYOUT.decayed, "all": LAYOUT.trained, "none": 0}[decay]
    assert (decayed[:ends] == 0.1).all() and not decayed[ends:].any()


@pytest.mark.parametrize("ranks", RANKS)
def test_shards_are_equal_and_begin_where_a_buffer_may(ranks):
    size = shard_size(LAYOUT, ranks)
    assert size % NUMBERS == 0
    assert ranks * size >= LAYOUT.trained > ranks * (size - NUMBERS)


def test_a_rank_whose_shard_is_all_padding_updates_nothing():
    assert shard(groups(LAYOUT, "all", 0.1), shard_size(LAYOUT, 12), 11) == []


def test_no_ranks_are_refused():
    with pytest.raises(ConfigError, match="0 ranks"):
        shard_size(LAYOUT, 0)


@pytest.mark.parametrize("backend", ["numpy", "numba", "cupy"])
@pytest.mark.parametrize("ranks", [2, 3])
def test_updating_shards_gives_the_bits_of_updating_all(backend, ranks):
    rng = np.random.default_rng(0)
    P = LAYOUT.trained
    state = {name: rng.normal(size=P).astype(np.float32) for name in ("param", "m", "grad")}
    state["v"] = rng.random(P).astype(np.float32)
    function = load(backend, all_ops()).call
    scalars = [np.array(x, np.float32) for x in ([1e-3], [0.1, 0.01], [1.0])]
    key = np.array([7, 3], np.int32)

    def updated(spans):
        held = {name: array.copy() for name, array in state.items()}
        low = np.zeros(P, ml_dtypes.bfloat16)
        for span in spans:
            at = slice(span.start, span.stop)
            arrays = held["param"][at], low[at], held["m"][at], held["v"][at], held["grad"][at]
            numbers = 0.9, 0.99, 1e-8, span.weight_decay, span.start
            function("adamw_master", *arrays, *scalars, key, *numbers)
        return held, low

    spans, size = groups(LAYOUT, "matrices", 0.1), shard_size(LAYOUT, ranks)
    whole, low = updated(spans)
    cut, low_cut = updated([span for rank in range(ranks) for span in shard(spans, size, rank)])
    for name, array in whole.items():
        np.testing.assert_array_equal(cut[name], array, name)
    np.testing.assert_array_equal(low_cut.view(np.uint16), low.view(np.uint16))
    assert not np.array_equal(whole["param"], state["param"])


def test_a_run_knows_its_length():
    assert len(Span(3, 5, 0.0)) == 2 and len(Span(5, 3, 0.0)) == 0
