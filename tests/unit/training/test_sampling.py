"""Drawing tokens: from the distribution that the settings say, from a stream of its own."""

import numpy as np
import pytest

from harness.sampling import generate, pick, stream

LOGITS_V = np.log(np.array([0.1, 0.4, 0.2, 0.3], np.float32))


def shares(temperature, top_k, draws=4000):
    rng = stream(0, 0)
    drawn = [pick(LOGITS_V, rng, temperature, top_k) for _ in range(draws)]
    return np.bincount(drawn, minlength=4) / draws


def test_tokens_come_as_often_as_their_probability():
    assert shares(1.0, None) == pytest.approx([0.1, 0.4, 0.2, 0.3], abs=0.03)


def test_temperature_sharpens_or_flattens():
    squared = np.array([0.01, 0.16, 0.04, 0.09]) / 0.3
    assert shares(0.5, None) == pytest.approx(squared, abs=0.03)
    assert shares(100.0, None) == pytest.approx([0.25] * 4, abs=0.03)


def test_temperature_0_takes_the_largest():
    assert {pick(LOGITS_V, stream(s, 0), 0.0, None) for s in range(20)} == {1}


def test_top_k_leaves_the_k_largest_only():
    assert shares(1.0, 2) == pytest.approx([0, 4 / 7, 0, 3 / 7], abs=0.03)
    assert shares(1.0, 1) == pytest.approx([0, 1, 0, 0])
    assert shares(1.0, 99) == pytest.approx(shares(1.0, None))


def test_each_token_takes_one_number_whatever_the_settings():
    for temperature, top_k in ((0.0, None), (1.0, None), (1.0, 1)):
        rng, plain = stream(1, 2), stream(1, 2)
        pick(LOGITS_V, rng, temperature, top_k)
        plain.random()
        assert rng.random() == plain.random()


def test_every_seed_and_step_has_a_stream_of_its_own():
    numbers = {stream(seed, step).random() for seed in range(5) for step in range(5)}
    assert len(numbers) == 25


def test_text_longer_than_the_context_goes_on_from_its_last_tokens(make_trainer):
    trainer = make_trainer()
    for array in trainer.executor.parameters.to_host():
        trainer.parameters.view("parameter", array)[...] *= 30  # so that every token tells
    sampler = trainer.another(1, 8, head="logits")

    def continued(prompt):
        return list(generate(sampler, prompt, 4, 40, stream(0, 0), temperature=0.0))

    prompt = [31, 7, 22, 15, *range(8)]
    assert continued(prompt) == continued(prompt[-8:])
    assert continued(prompt) != continued(prompt[:8])


def test_a_token_depends_on_the_prompt_alone_and_not_on_what_was_written_before(make_trainer):
    sampler = make_trainer().another(1, 8, head="logits")
    first = list(generate(sampler, [3], 5, 40, stream(0, 0)))
    list(generate(sampler, [7, 8, 9, 1, 2, 3, 4, 5], 3, 40, stream(5, 5)))
    assert list(generate(sampler, [3], 5, 40, stream(0, 0))) == first


def test_padding_of_the_vocabulary_is_never_drawn(make_trainer):
    sampler = make_trainer().another(1, 8, head="logits")
    drawn = list(generate(sampler, [0], 300, 40, stream(0, 0), temperature=50.0))
    assert max(drawn) < 40 and len(set(drawn)) > 30
