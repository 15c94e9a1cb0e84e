"""config.json: the mathematics and the sizes that are read, and those that are refused."""

import json
import tracemalloc

import pytest

from harness.errors import CheckpointError
from harness.interchange.huggingface.folder import HuggingFaceModel
from tests.unit.interchange import huggingface_by_hand as by_hand
from tests.unit.interchange.huggingface_by_hand import CONFIG, MODEL, C, refusal

FULL = by_hand.prefixed(by_hand.random_weights())


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "gpt2"


OTHERWISE = {
    "activation_function": ["relu", "gelu", "gelu_fast", None, ["gelu_new"]],
    "layer_norm_epsilon": [1e-6, 0, "1e-5", None],
    "n_inner": [4 * C + 1, "24", True],
    "scale_attn_weights": [False, None, 1],
    "scale_attn_by_inverse_layer_idx": [True, 0],
    "reorder_and_upcast_attn": [True],
    "tie_word_embeddings": [False],
    "add_cross_attention": [True],
    "is_causal": [False, None],
    "pruned_heads": [{"0": [1]}],
    "quantization_config": [{"bits": 4}],
    "model_type": ["gpt_neo", "llama", None, 2],
}


@pytest.mark.parametrize(("key", "value"), [(k, v) for k, vs in OTHERWISE.items() for v in vs])
def test_other_mathematics_is_refused_with_its_key_and_value(folder, key, value):
    error = refusal(by_hand.write_folder(folder, FULL, CONFIG | {key: value}))
    assert (type(error), error.slug) == (CheckpointError, "huggingface-config-unsupported")
    assert f"{key}={json.dumps(value)}" in error.headline
    assert error.facts["expected"].startswith(f"{key} as ")


@pytest.mark.parametrize(
    "change",
    [
        {"activation_function": "gelu_pytorch_tanh"},
        {"n_inner": 4 * C},
        {"pruned_heads": {}, "quantization_config": None},
        {"attn_pdrop": 0.5, "task_specific_params": {"text-generation": {"max_length": 50}}},
    ],
    ids=lambda change: next(iter(change)),
)
def test_the_same_mathematics_by_another_word_is_read(folder, change):
    with HuggingFaceModel(by_hand.write_folder(folder, FULL, CONFIG | change)) as found:
        assert found.model == MODEL


def test_what_a_config_leaves_out_is_as_transformers_has_it(folder):
    needed = ("model_type", "n_embd", "n_head", "n_layer", "n_positions", "vocab_size")
    config = {key: CONFIG[key] for key in needed}
    with HuggingFaceModel(by_hand.write_folder(folder, FULL, config)) as found:
        assert found.model == MODEL
    for key in needed:
        less = {other: value for other, value in config.items() if other != key}
        error = refusal(by_hand.write_folder(folder, FULL, less))
        assert error.slug.startswith("huggingface-config-") and key in str(error)


@pytest.mark.parametrize("key", ["n_embd", "n_head", "n_layer", "n_positions", "vocab_size"])
@pytest.mark.parametrize("value", [0, -1, 2**31, 10**30, 2.0, True, "2", None, [2]], ids=str)
def test_a_size_that_is_no_count_is_refused(folder, key, value):
    error = refusal(by_hand.write_folder(folder, FULL, CONFIG | {key: value}))
    assert (type(error), error.slug) == (CheckpointError, "huggingface-config-invalid")
    assert key in str(error)


@pytest.mark.parametrize("key", ["n_embd", "n_layer", "n_positions", "vocab_size"])
def test_a_size_that_the_tensors_do_not_have_is_refused_before_memory_is_taken(folder, key):
    large = CONFIG | {key: 2**31 - 2}
    tracemalloc.start()
    try:
        error = refusal(by_hand.write_folder(folder, FULL, large))
        assert tracemalloc.get_traced_memory()[1] < 2 << 20
    finally:
        tracemalloc.stop()
    assert (type(error), error.slug) == (CheckpointError, "huggingface-misfit")


def test_heads_must_divide_the_channels(folder):
    error = refusal(by_hand.write_folder(folder, FULL, CONFIG | {"n_head": 4}))
    assert error.slug == "huggingface-config-invalid"
    assert error.facts["found"] == "n_head=4"


OTHER_NAMES = {
    "n_embd": "hidden_size",
    "n_head": "num_attention_heads",
    "n_layer": "num_hidden_layers",
    "n_positions": "max_position_embeddings",
}


@pytest.mark.parametrize("key", OTHER_NAMES)
def test_a_size_is_read_by_its_other_name(folder, key):
    config = {name: value for name, value in CONFIG.items() if name != key}
    for both in (config, CONFIG):
        by_hand.write_folder(folder, FULL, both | {OTHER_NAMES[key]: CONFIG[key]})
        with HuggingFaceModel(folder) as found:
            assert found.model == MODEL


@pytest.mark.parametrize("key", OTHER_NAMES)
@pytest.mark.parametrize("value", [1, None, "2", True])
def test_two_names_of_a_size_that_disagree_are_refused_with_both(folder, key, value):
    config = CONFIG | {OTHER_NAMES[key]: value}
    error = refusal(by_hand.write_folder(folder, FULL, config))
    assert (type(error), error.slug) == (CheckpointError, "huggingface-config-invalid")
    expected = f"{key}={CONFIG[key]}, {OTHER_NAMES[key]}={json.dumps(value)}"
    assert error.facts["found"] == expected


NO_CONFIG = {
    "nothing": b"",
    "not JSON": b"n_layer: 2",
    "a list": b"[]",
    "a number": b"2",
    "not UTF-8": b"\xff\xfe{}",
    "deep nesting": b"[" * 200_000,
    "ten thousand digits": b'{"n_layer": ' + b"9" * 10_000 + b"}",
    "a key twice": json.dumps(CONFIG).encode().replace(b"{", b'{"n_layer": 2, ', 1),
    "two megabytes": b" " * (2 << 20) + json.dumps(CONFIG).encode(),
}


@pytest.mark.parametrize("name", NO_CONFIG)
def test_a_config_that_is_none_is_one_error(folder, name):
    by_hand.write_folder(folder, FULL)
    (folder / "config.json").write_bytes(NO_CONFIG[name])
    error = refusal(folder)
    assert (type(error), error.slug) == (CheckpointError, "huggingface-config-invalid")
