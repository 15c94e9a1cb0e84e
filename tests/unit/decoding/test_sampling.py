"""Drawing tokens: from the distribution that the settings say, from a stream of its own."""

import numpy as np
import pytest

from harness.decoding.continuation import Row, continuations
from harness.decoding.sampling import (
    Sampling,
    draw,
    heat,
    largest,
    nucleus,
    penalise,
    row_stream,
    stream,
)
from harness.errors import NumericsError

LOGITS_V = np.log(np.array([0.1, 0.4, 0.2, 0.3], np.float32))


def shares(temperature, top_k, draws=4000):
    rng = stream(0, 0)
    drawn = [draw(LOGITS_V, rng, Sampling(temperature, top_k)) for _ in range(draws)]
    return np.bincount(drawn, minlength=4) / draws


def test_tokens_come_as_often_as_their_probability():
    assert shares(1.0, None) == pytest.approx([0.1, 0.4, 0.2, 0.3], abs=0.03)


def test_temperature_sharpens_or_flattens():
    squared = np.array([0.01, 0.16, 0.04, 0.09]) / 0.3
    assert shares(0.5, None) == pytest.approx(squared, abs=0.03)
    assert shares(100.0, None) == pytest.approx([0.25] * 4, abs=0.03)


def test_temperature_0_takes_the_largest():
    assert {draw(LOGITS_V, stream(s, 0), Sampling(0.0)) for s in range(20)} == {1}


def test_top_k_leaves_the_k_largest_only():
    assert shares(1.0, 2) == pytest.approx([0, 4 / 7, 0, 3 / 7], abs=0.03)
    assert shares(1.0, 1) == pytest.approx([0, 1, 0, 0])
    assert shares(1.0, 99) == pytest.approx(shares(1.0, None))


def test_each_token_takes_one_number_whatever_the_settings():
    for temperature, top_k in ((0.0, None), (1.0, None), (1.0, 1)):
        rng, plain = stream(1, 2), stream(1, 2)
        draw(LOGITS_V, rng, Sampling(temperature, top_k))
        plain.random()
        assert rng.random() == plain.random()


def test_every_seed_and_step_has_a_stream_of_its_own():
    numbers = {stream(seed, step).random() for seed in range(5) for step in range(5)}
    assert len(numbers) == 25


def continued(decoder, prompt, length, temperature=1.0, seed=0):
    row = Row(prompt, stream(seed, 0))
    for _ in continuations(decoder, [row], Sampling(temperature), length):
        pass
    return row.tokens


def test_text_longer_than_the_context_goes_on_from_its_newest_half(make_trainer):
    trainer = make_trainer()
    for array in trainer.executor.parameters.to_host():
        trainer.parameters.view("parameter", array)[...] *= 30  # so that every token tells
    decoder = trainer.decoder()
    prompt = [31, 7, 22, 15, *range(8)]
    greedy = continued(decoder, prompt, 4, temperature=0)
    assert greedy == continued(decoder, prompt[-4:], 4, temperature=0)
    assert greedy != continued(decoder, prompt[:4], 4, temperature=0)


def test_a_token_depends_on_the_prompt_alone_and_not_on_what_was_written_before(make_trainer):
    decoder = make_trainer().decoder()
    first = continued(decoder, [3], 5)
    continued(decoder, [7, 8, 9, 1, 2, 3, 4, 5], 3, seed=5)
    assert continued(decoder, [3], 5) == first


def test_padding_of_the_vocabulary_is_never_drawn(make_trainer):
    drawn = continued(make_trainer().decoder(), [0], 300, temperature=50.0)
    assert max(drawn) < 40 and len(set(drawn)) > 30


# -- what is left of a distribution --------------------------------------------------------------


def kept(logits_V):
    """The ids that can still be drawn."""
    return {int(token) for token in np.flatnonzero(np.isfinite(logits_V))}


def by_hand(logits, context, settings):
    """The probabilities of the docstring's order, in plain Python: id -> probability."""
    penalty = settings.repetition_penalty
    scores = [float(x) for x in logits]
    for token in set(context):
        scores[token] = scores[token] * penalty if scores[token] < 0 else scores[token] / penalty
    scores = [x / settings.temperature for x in scores]
    ranked = sorted(range(len(scores)), key=lambda token: (-scores[token], token))
    ranked = ranked[: settings.top_k]
    total = sum(np.exp(scores[token]) for token in ranked)
    found, reached = {}, 0.0
    for token in ranked:
        found[token] = np.exp(scores[token])
        reached += found[token] / total
        if settings.top_p is not None and reached >= settings.top_p:
            break
    total = sum(found.values())
    return {token: mass / total for token, mass in found.items()}


EVERY_SETTING = [
    Sampling(temperature, top_k, top_p, penalty)
    for temperature in (0.5, 1.0, 1.7)
    for top_k in (None, 1, 7)
    for top_p in (None, 0.3, 0.95)
    for penalty in (1.0, 0.7, 1.4)
]


def test_the_settings_leave_what_they_leave_when_computed_by_hand():
    rng = np.random.default_rng(0)
    for settings in EVERY_SETTING:
        logits_V = rng.normal(0, 2, 30).astype(np.float32)
        context = rng.integers(0, 30, 8).tolist()
        expected = by_hand(logits_V, context, settings)
        left_V = penalise(logits_V.astype(np.float64), context, settings.repetition_penalty)
        left_V = largest(heat(left_V, settings.temperature), settings.top_k)
        left_V = nucleus(left_V, settings.top_p)
        assert kept(left_V) == set(expected), settings
        found_V = np.exp(left_V) / np.exp(left_V).sum()
        for token, probability in expected.items():
            assert found_V[token] == pytest.approx(probability, rel=1e-12), settings


def test_the_settings_leave_what_transformers_leaves():
    pytest.importorskip("torch", reason="the referee is transformers; extra: [reference]")
    transformers = pytest.importorskip("transformers", reason="extra: [reference]")
    import torch

    rng = np.random.default_rng(1)
    for settings in EVERY_SETTING:
        logits_V = rng.normal(0, 2, 30)
        context = rng.integers(0, 30, 8)
        ids, scores = torch.from_numpy(context[None]), torch.from_numpy(logits_V[None])
        penalty = settings.repetition_penalty
        processors = [
            transformers.RepetitionPenaltyLogitsProcessor(penalty) if penalty != 1 else None,
            transformers.TemperatureLogitsWarper(settings.temperature),
            transformers.TopKLogitsWarper(settings.top_k) if settings.top_k else None,
            transformers.TopPLogitsWarper(settings.top_p) if settings.top_p else None,
        ]
        for processor in filter(None, processors):
            scores = processor(ids, scores)
        left_V = penalise(logits_V, context, penalty)
        left_V = largest(heat(left_V, settings.temperature), settings.top_k)
        left_V = nucleus(left_V, settings.top_p)
        expected_V = scores[0].softmax(-1).numpy()
        np.testing.assert_allclose(np.exp(left_V) / np.exp(left_V).sum(), expected_V, atol=1e-14)


def test_transformers_applies_its_processors_in_our_order():
    pytest.importorskip("torch", reason="the referee is transformers; extra: [reference]")
    transformers = pytest.importorskip("transformers", reason="extra: [reference]")
    config = transformers.GPT2Config(
        n_layer=1, n_head=1, n_embd=8, vocab_size=9, bos_token_id=0, eos_token_id=0
    )
    model = transformers.GPT2LMHeadModel(config)
    settings = transformers.GenerationConfig(
        do_sample=True, temperature=0.5, top_k=3, top_p=0.9, repetition_penalty=1.2
    )
    found = model._get_logits_processor(settings, input_ids_seq_length=1)
    assert [type(processor).__name__ for processor in found] == [
        "RepetitionPenaltyLogitsProcessor",
        "TemperatureLogitsWarper",
        "TopKLogitsWarper",
        "TopPLogitsWarper",
    ]


def test_of_equals_the_lowest_id_is_the_greedy_choice():
    logits_V = np.array([1, 3, 3, 2, 3], np.float32)
    assert draw(logits_V, stream(0, 0), Sampling(0.0)) == 1


def test_the_token_that_crosses_p_is_in_the_nucleus():
    logits_V = np.log([0.5, 0.3, 0.15, 0.05])
    assert kept(nucleus(logits_V, 0.4)) == {0}
    assert kept(nucleus(logits_V, 0.6)) == {0, 1}
    assert kept(nucleus(logits_V, 0.9)) == {0, 1, 2}
    assert kept(nucleus(logits_V, 1.0)) == {0, 1, 2, 3}


def test_p_and_k_however_small_leave_the_largest():
    logits_V = np.array([0.1, 0.3, 0.2])
    assert kept(nucleus(logits_V, 1e-300)) == kept(largest(logits_V, 1)) == {1}


def test_of_equals_the_nucleus_takes_the_lowest_ids():
    assert kept(nucleus(np.zeros(10), 0.25)) == {0, 1, 2}


def test_a_token_that_stands_in_the_context_twice_is_penalised_once():
    logits_V = np.array([2.0, -2.0, 1.0])
    found_V = penalise(logits_V, [0, 0, 1, 1, 1], 2.0)
    assert found_V.tolist() == [1.0, -4.0, 1.0]
    assert logits_V.tolist() == [2.0, -2.0, 1.0], "the logits themselves are left as they were"


@pytest.mark.parametrize("penalty", [1e-310, 1e-308, 1e308])
@pytest.mark.parametrize("sign", [-1, 1])
def test_the_most_extreme_penalty_leaves_a_token_to_draw(penalty, sign):
    everything = range(len(LOGITS_V))
    for settings in (Sampling(1.0, None, None, penalty), Sampling(1e-310, 3, 0.9, penalty)):
        token = draw(sign * LOGITS_V - sign, stream(0, 0), settings, everything)
        assert token in everything
    assert np.isfinite(penalise(LOGITS_V.astype(np.float64), everything, penalty)).all()


def test_a_penalty_moves_the_greedy_choice_to_a_new_token():
    logits_V = np.array([1.0, 1.2, -3.0], np.float32)
    assert draw(logits_V, stream(0, 0), Sampling(0.0), context=[1]) == 1
    assert draw(logits_V, stream(0, 0), Sampling(0.0, repetition_penalty=1.5), context=[1]) == 0


@pytest.mark.parametrize("temperature", [1e-320, 1e-6, 1e300])
def test_the_largest_and_smallest_temperatures_still_draw(temperature):
    logits_V = np.array([1e3, -1e3, 1e3 + 1], np.float32)
    drawn = {draw(logits_V, stream(s, 0), Sampling(temperature)) for s in range(50)}
    assert drawn == ({2} if temperature < 1 else {0, 1, 2})


def test_a_token_that_is_left_out_is_never_drawn_not_even_by_the_smallest_number():
    class Zero:
        def random(self):
            return 0.0

    logits_V = np.array([0.0, 1.0, 2.0, 0.5], np.float32)
    assert draw(logits_V, Zero(), Sampling(top_k=2)) == 1
    Zero.random = lambda self: 1 - 2.0**-53
    assert draw(logits_V, Zero(), Sampling(top_k=2)) == 2


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_logits_that_are_not_finite_are_an_error_and_not_a_token(value):
    logits_V = np.array([0, value, 1], np.float32)
    for settings in (Sampling(0.0), Sampling(1.0, top_k=2)):
        with pytest.raises(NumericsError, match="not finite"):
            draw(logits_V, stream(0, 0), settings)


def test_every_draw_takes_one_number_whatever_the_settings():
    logits_V = np.linspace(-1, 1, 30, dtype=np.float32)
    for settings in (Sampling(0.0), *EVERY_SETTING):
        rng, plain = row_stream(1, 2), row_stream(1, 2)
        draw(logits_V, rng, settings, [1, 2])
        plain.random()
        assert rng.random() == plain.random(), settings


def test_the_rows_of_a_batch_and_the_steps_of_training_have_different_streams():
    numbers = {f(seed, i).random() for f in (stream, row_stream) for seed in (0, 1) for i in (0, 1)}
    assert len(numbers) == 8


def test_the_streams_are_those_of_the_published_generator():
    # Philox4x64 with key (seed, row) and counter (0, 0, 0, 2): what golden texts depend on.
    assert (
        row_stream(3, 5).random()
        == np.random.Generator(
            np.random.Philox(key=np.array([3, 5], np.uint64), counter=[0, 0, 0, 2])
        ).random()
    )
