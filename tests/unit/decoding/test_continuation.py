"""Rows of a batch: each goes its own way, and stops at its own end."""

import numpy as np
import pytest

from harness.decoding.continuation import Row, continuations
from harness.decoding.sampling import Sampling, row_stream

V = 12
PLAIN = Sampling()


class Chain:
    """A decoder whose next token depends on each row's last two alone. calls: what it was fed."""

    def __init__(self, seed=0):
        self.logits = np.random.default_rng(seed).normal(0, 1.5, (V, V, V)).astype(np.float32)
        self.calls = []

    def start(self, prompts):
        self.texts = [[0, *prompt] for prompt in prompts]
        return self._logits()

    def step(self, tokens_B):
        self.calls.append(list(tokens_B))
        for text, token in zip(self.texts, tokens_B, strict=True):
            text.append(int(token))
        return self._logits()

    def _logits(self):
        return np.stack([self.logits[text[-2], text[-1]] for text in self.texts])


def continued(prompts, settings=PLAIN, first=0, length=20, stop=None, above=0, **changes):
    rows = [Row(prompt, row_stream(0, first + i)) for i, prompt in enumerate(prompts)]
    decoder = Chain()
    decoder.logits += above
    for _ in continuations(decoder, rows, settings, length, stop, **changes):
        pass
    return rows, decoder


PROMPTS = [[1], [2, 3, 4, 5], [6, 7], [1]]


@pytest.mark.parametrize(
    "settings",
    [Sampling(0.0), Sampling(1.0), Sampling(0.7, 5, 0.9, 1.3)],
    ids=["greedy", "plain", "all settings"],
)
def test_a_row_does_not_depend_on_its_neighbours(settings):
    together, _ = continued(PROMPTS, settings, stop=3)
    for i, prompt in enumerate(PROMPTS):
        (alone,), _ = continued([prompt], settings, first=i, stop=3)
        assert (alone.tokens, alone.ended) == (together[i].tokens, together[i].ended)


def test_equal_prompts_draw_different_texts():
    rows, _ = continued([[1]] * 4)
    assert len({tuple(row.tokens) for row in rows}) == 4


def test_a_row_that_ended_stands_still_while_others_go_on():
    rows, decoder = continued(PROMPTS, stop=3, length=50)
    draws = [len(row.tokens) + (row.ended == "end_of_text") for row in rows]
    assert len(set(draws)) > 1, "they end at different times"
    assert len(decoder.calls) == max(draws) - 1
    for row in rows:
        assert 3 not in row.tokens
        assert (len(row.tokens) == 50) == (row.ended == "length")


def test_the_stream_of_a_row_that_ended_is_left_alone():
    rows, _ = continued(PROMPTS, stop=3, length=50)
    for i, row in enumerate(rows):
        fresh = row_stream(0, i)
        for _ in range(len(row.tokens) + (row.ended == "end_of_text")):
            fresh.random()
        assert row.rng.random() == fresh.random()


def test_the_last_token_is_not_computed_with():
    rows, decoder = continued([[1]], length=1)
    assert len(rows[0].tokens) == 1 and decoder.calls == []


def test_ids_beyond_the_vocabulary_are_not_drawn():
    rows, _ = continued([[1]], Sampling(50.0), length=300, vocab_size=5)
    assert set(rows[0].tokens) == set(range(5))


def test_the_penalty_counts_the_prompt_and_what_was_drawn():
    # All logits are positive: a token that was seen falls below every one that was not.
    settings = Sampling(0.0, repetition_penalty=1e6)
    rows, _ = continued([[1, 2]], settings, length=V - 2, above=10)
    assert sorted(rows[0].tokens) == sorted(set(range(V)) - {1, 2})
