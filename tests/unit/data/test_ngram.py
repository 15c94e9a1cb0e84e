"""What counting alone reaches."""

import math
import platform
import sys
from collections import Counter

import numpy as np
import pytest

from harness.data import load, ngram_losses


def slow_probability(train, context, w, vocab_size):
    """Witten-Bell straight from its definition, for one token."""
    n = len(context) + 1
    if n > 1:
        shorter = slow_probability(train, context[1:], w, vocab_size)
    else:
        shorter = 1 / vocab_size
    grams = Counter(tuple(train[i : i + n]) for i in range(len(train) - n + 1))
    followers = {gram: count for gram, count in grams.items() if gram[:-1] == context}
    total, distinct = sum(followers.values()), len(followers)
    if not total:
        return shorter
    return (followers.get((*context, w), 0) + distinct * shorter) / (total + distinct)


@pytest.mark.parametrize("vocab_size", [4, 7, 50257])
def test_the_losses_are_those_of_the_definition(vocab_size):
    rng = np.random.default_rng(0)
    train = rng.integers(0, 4, size=60)
    validation = rng.integers(0, min(vocab_size, 6), size=25)
    losses = ngram_losses(train, validation, vocab_size)
    assert list(losses) == ["unigram", "bigram", "trigram"]
    for n, found in enumerate(losses.values(), start=1):
        expected = np.mean([
            -math.log(slow_probability(train.tolist(), tuple(validation[i - n + 1 : i].tolist()),
                                       int(validation[i]), vocab_size))
            for i in range(n - 1, len(validation))
        ])  # fmt: skip
        assert found == pytest.approx(expected, rel=1e-12)  # float64, a mean of 25 terms


def test_the_probabilities_of_all_next_tokens_sum_to_one():
    train = np.array([0, 1, 2, 0, 1, 3, 3, 1])
    for context in ([0, 1], [3, 3], [2, 2], [4, 4]):  # seen twice, once, half, never
        losses = [ngram_losses(train, np.array([*context, w]), 5)["trigram"] for w in range(5)]
        assert sum(map(math.exp, (-loss for loss in losses))) == pytest.approx(1, abs=1e-14)


def test_an_unforeseeable_text_costs_the_logarithm_of_its_alphabet():
    tokens = np.random.default_rng(0).integers(0, 8, size=200_000)
    losses = ngram_losses(tokens[:180_000], tokens[180_000:], 8)
    for loss in losses.values():
        assert loss == pytest.approx(math.log(8), abs=0.003)  # counting noise of 512 contexts


def test_a_text_that_repeats_costs_nothing_once_the_context_is_known():
    tokens = np.tile([0, 1, 0, 2], 5000)  # after 0 stands 1 or 2; after "1 0" always 2
    losses = ngram_losses(tokens, tokens, 3)
    assert losses["bigram"] == pytest.approx(math.log(2) / 2, abs=1e-3)
    assert losses["trigram"] == pytest.approx(0, abs=1e-3)


def test_an_order_that_validation_is_too_short_for_is_left_out():
    train = np.array([0, 1, 0, 1])
    assert ngram_losses(train, np.array([], np.int32), 2) == {}
    assert list(ngram_losses(train, np.array([1]), 2)) == ["unigram"]
    assert list(ngram_losses(train, np.array([1, 0]), 2)) == ["unigram", "bigram"]


def test_an_order_whose_codes_need_more_than_63_bits_is_left_out():
    assert list(ngram_losses(np.arange(9), np.arange(9), 3_000_000)) == ["unigram", "bigram"]


def test_nothing_to_count_leaves_the_uniform_guess():
    losses = ngram_losses(np.array([], np.int32), np.array([1, 2, 3]), 256)
    assert list(losses.values()) == pytest.approx([math.log(256)] * 3)


@pytest.mark.skipif(
    sys.version_info[:2] != (3, 11) or platform.python_implementation() != "CPython",
    reason="the known figures are those of CPython 3.11's standard library",
)
def test_the_standard_library_has_its_known_losses(tmp_path):
    dataset = load("stdlib", None, "bytes", 0.1, tmp_path)
    losses = ngram_losses(dataset.train, dataset.validation, dataset.vocab_size)
    known = {"unigram": 3.15, "bigram": 2.46, "trigram": 1.89}  # counted by other code
    assert losses == pytest.approx(known, abs=0.03)  # their smoothing differs, and 3.11.x too
