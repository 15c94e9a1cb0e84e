"""A decoder with a cache gives what computing the whole text gives."""

import tracemalloc

import numpy as np
import pytest

from harness.contract.precision import Precision
from harness.decoding.decoder import Decoder, Recomputer
from harness.device import HOST
from harness.errors import ConfigError, DataError, ResourceError
from harness.execution.parameters import Parameters
from harness.models.gpt2 import GPT2, build
from harness.planning.memory_budget import MemoryNeed
from harness.plugins import all_ops
from harness.plugins.dispatch import Dispatch

OPS = all_ops()
MODEL = GPT2(layers=2, heads=2, channels=16, positions=16, vocab_size=40)
PROMPTS = [[1, 2, 3, 4, 5], [7], [9] * 9]

# Cached and recomputed differ in the order of float32 sums: some 1e-6 of logits around 1.
CLOSE = 1e-5

# float64 formulas on both sides, rounded to float32 at each op.
BACKENDS = ("numpy", "python", "reference")


@pytest.fixture(scope="module")
def parameters():
    """Of the small model; larger than at initialisation, so that attention is far from uniform."""
    made = Parameters(build(OPS, MODEL, 1, 1, head="logits")[0], HOST)
    made.initialise(0)
    for name, values in made.to_host().items():
        if "w" in name and values.ndim == 2:
            np.multiply(made.view("parameter", name), 4, out=made.view("parameter", name))
    return made


@pytest.fixture
def decoder(parameters):
    """decoder(kind, backend, **options)"""

    def make(kind, backend="numpy", **options):
        return kind(MODEL, parameters, Dispatch(OPS, {"every_op": backend}), **options)

    return make


def logits_of_plain_gpt2(parameters, text):
    """The logits after a text of any length: GPT-2 in float64, written down for one row."""
    weight = {name: values.astype(np.float64) for name, values in parameters.to_host().items()}
    T, H, D = len(text), MODEL.heads, MODEL.channels // MODEL.heads

    def norm(x, name):
        x = x - x.mean(axis=-1, keepdims=True)
        x = x / np.sqrt((x * x).mean(axis=-1, keepdims=True) + 1e-5)
        return x * weight[name.replace("?", "w")] + weight[name.replace("?", "b")]

    def linear(x, name):
        return x @ weight[name.replace("?", "w")].T + weight[name.replace("?", "b")]

    x = weight["wte"][text] + weight["wpe"][:T]
    for layer in range(MODEL.layers):
        qkv = linear(norm(x, f"ln1?.{layer}"), f"qkv?.{layer}").reshape(T, 3, H, D)
        s = np.einsum("ihd,jhd->hij", qkv[:, 0], qkv[:, 1]) / np.sqrt(D)
        e = np.exp(np.where(np.tri(T, dtype=bool), s, -np.inf))
        p = e / e.sum(axis=-1, keepdims=True)
        mixed = np.einsum("hij,jhd->ihd", p, qkv[:, 2]).reshape(T, H * D)
        x = x + linear(mixed, f"attproj?.{layer}")
        u = linear(norm(x, f"ln2?.{layer}"), f"fc?.{layer}")
        u = u * (1 + np.tanh(np.sqrt(2 / np.pi) * (u + 0.044715 * u**3))) / 2
        x = x + linear(u, f"fcproj?.{layer}")
    return (norm(x[-1], "lnf?") @ weight["wte"].T)[: MODEL.vocab_size]


@pytest.mark.parametrize("kind", [Decoder, Recomputer])
@pytest.mark.parametrize("backend", BACKENDS)
def test_logits_are_those_of_plain_gpt2_at_every_position(decoder, parameters, kind, backend):
    texts = [list(prompt) for prompt in PROMPTS]
    made = decoder(kind, backend, B=3)
    logits = made.start(texts)
    rng = np.random.default_rng(0)
    for _ in range(7):
        expected = [logits_of_plain_gpt2(parameters, text) for text in texts]
        assert logits.shape == (3, 40) and logits.dtype == np.float32
        assert np.abs(logits - expected).max() < CLOSE * np.abs(expected).max()
        tokens = rng.integers(0, MODEL.vocab_size, 3)
        for text, token in zip(texts, tokens, strict=True):
            text.append(int(token))
        logits = made.step(tokens)


@pytest.mark.parametrize("kind", [Decoder, Recomputer])
def test_a_text_that_outgrows_the_positions_keeps_its_newest_half(decoder, parameters, kind):
    made = decoder(kind, B=2)
    text, short = list(range(15)), [3]
    made.start([text, short])
    text, short = [*text, 20], [*short, 20]
    logits = made.step([20, 20])  # sixteen of sixteen: they still fit
    assert np.allclose(logits[0], logits_of_plain_gpt2(parameters, text), atol=1e-5)
    text, short = [*text, 21], [*short, 21]
    logits = made.step([21, 21])
    assert np.allclose(logits[0], logits_of_plain_gpt2(parameters, text[-8:]), atol=1e-5)
    assert np.allclose(logits[1], logits_of_plain_gpt2(parameters, short), atol=1e-5)
    text, short = [*text[-8:], 22], [*short, 22]
    logits = made.step([22, 22])
    assert np.allclose(logits[0], logits_of_plain_gpt2(parameters, text), atol=1e-5)
    assert np.allclose(logits[1], logits_of_plain_gpt2(parameters, short), atol=1e-5)


def test_a_prompt_longer_than_the_positions_keeps_its_newest_half(decoder, parameters):
    text = [i % 40 for i in range(100)]
    for kind in (Decoder, Recomputer):
        logits = decoder(kind).start([text])
        assert np.allclose(logits[0], logits_of_plain_gpt2(parameters, text[-8:]), atol=1e-5)


@pytest.mark.parametrize("capacity", [9, 12, 16, 99])
def test_every_capacity_that_holds_the_text_gives_the_same(decoder, parameters, capacity):
    text = [5, 4, 3, 2, 1, 0, 7]
    made = decoder(Decoder, capacity=capacity)
    made.start([text])
    for token in (30, 31):
        text.append(token)
        logits = made.step([token])
    assert np.allclose(logits[0], logits_of_plain_gpt2(parameters, text), atol=1e-5)


def test_a_long_prompt_enters_the_cache_in_parts(decoder, parameters, monkeypatch):
    monkeypatch.setattr("harness.decoding.decoder.MAX_PREFILL", 4)
    monkeypatch.setattr("harness.decoding.decoder.MIN_PREFILL", 2)
    texts = [[i % 40 for i in range(n)] for n in (15, 7, 1)]
    made = decoder(Decoder, B=3)
    logits = made.start(texts)
    expected = [logits_of_plain_gpt2(parameters, text) for text in texts]
    assert np.allclose(logits, expected, atol=1e-5)


def test_a_second_start_forgets_the_first(decoder):
    fresh, used = decoder(Decoder), decoder(Decoder)
    used.start([[8] * 12])
    used.step([1])
    assert np.array_equal(used.start([[1, 2, 3]]), fresh.start([[1, 2, 3]]))


def test_what_the_parameters_become_counts_from_the_next_start_on(parameters):
    mine = Parameters(parameters.program, HOST)
    mine.initialise(0)
    for precision in ("fp32", "bf16"):
        dispatch = Dispatch(OPS, {"every_op": "numpy"})
        made = Decoder(MODEL, mine, dispatch, precision=Precision(precision))
        before = made.start([[1, 2]])
        mine.view("parameter", "wte")[...] *= 2
        mine.changed()
        fresh = Decoder(MODEL, mine, dispatch, precision=Precision(precision))
        after = made.start([[1, 2]])
        assert not np.array_equal(before, after)
        assert np.array_equal(after, fresh.start([[1, 2]]))


def test_under_bf16_cached_and_recomputed_differ_by_roundings(decoder):
    bf16 = Precision("bf16")
    cached, whole = (decoder(kind, B=3, precision=bf16) for kind in (Decoder, Recomputer))
    difference = np.abs(cached.start(PROMPTS) - whole.start(PROMPTS)).max()
    difference = max(difference, np.abs(cached.step([1, 2, 3]) - whole.step([1, 2, 3])).max())
    assert difference < 0.1  # logits up to 8, in units of 2^-5 there


def test_a_text_beyond_the_capacity_is_refused(decoder):
    made = decoder(Decoder, capacity=4)
    made.start([[1, 2, 3]])
    made.step([4])
    with pytest.raises(ConfigError, match="5 tokens does not fit a decoder made for 4"):
        made.step([5])
    with pytest.raises(ConfigError, match="9 tokens"):
        made.start([[0] * 9])


def test_a_token_outside_of_the_vocabulary_is_refused_before_a_kernel_runs(decoder):
    made = decoder(Decoder)
    with pytest.raises(DataError, match="40"):
        made.start([[1, 40]])
    made.start([[1]])
    with pytest.raises(DataError, match="-1"):
        made.step([-1])


def test_a_model_without_a_decoding_op_is_refused_by_name(parameters):
    lattice = GPT2(2, 2, 16, 16, 40, attention="lattice_attention")
    with pytest.raises(
        ConfigError, match="lattice_attention cannot generate from a cache"
    ) as caught:
        Decoder(lattice, parameters, Dispatch(OPS, {"every_op": "numpy"}))
    assert "cache=false" in caught.value.facts["do"]


def test_a_cache_that_the_memory_does_not_hold_is_refused(decoder):
    need = MemoryNeed(lambda needed, available: ["less"], available=20_000)
    with pytest.raises(ResourceError):
        decoder(Decoder, B=8, memory=need)
    decoder(Decoder, B=1, capacity=2, memory=MemoryNeed(lambda n, a: [], available=50_000))


def test_a_step_copies_no_cache(parameters):
    model = GPT2(layers=1, heads=2, channels=64, positions=512, vocab_size=40)
    wide = Parameters(build(OPS, model, 1, 1, head="logits")[0], HOST)
    made = Decoder(model, wide, Dispatch(OPS, {"every_op": "numpy"}))
    made.start([[1] * 400])
    made.step([1])
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        made.step([3])
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak - before < 16_384  # small objects; the part of a cache that is read has 100 KiB


def test_a_trainers_decoder_has_the_trainers_parameters(make_trainer, six_sequences):
    trainer = make_trainer()
    made, whole = trainer.decoder(), trainer.decoder(cache=False)
    before = made.start([[1, 2, 3]])
    trainer.step(six_sequences[0][:2], six_sequences[1][:2], learning_rate=0.05)
    after = made.start([[1, 2, 3]])
    assert not np.allclose(before, after)
    assert np.allclose(after, whole.start([[1, 2, 3]]), atol=1e-6)
