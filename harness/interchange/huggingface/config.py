"""`config.json` of a Hugging Face GPT-2: the model's shape, and a refusal of any other mathematics.

A key that is absent has the value that transformers gives it; the five sizes must be there, four of
them by either of their names.
"""

import json
from pathlib import Path
from typing import Any

from harness.errors import CheckpointError, ConfigError, shortened
from harness.files.json_file import read_json
from harness.models.gpt2 import GPT2, LAYERNORM_EPS
from harness.tokenizers import Tokenizer

CONFIG = "config.json"
MAX_CONFIG_BYTES = 1 << 20  # GPT-2's have one kB

SIZES = ("n_layer", "n_head", "n_embd", "n_positions", "vocab_size")
OTHER_NAMES = {
    # transformers takes a size by these too (GPT2Config.attribute_map), and before its own name
    "n_layer": "num_hidden_layers",
    "n_head": "num_attention_heads",
    "n_embd": "hidden_size",
    "n_positions": "max_position_embeddings",
}
MAX_SIZE = (1 << 31) - 1
COMPUTED: dict[str, tuple[Any, ...]] = {
    # key: the values that mean what we compute; the first is the one that an absent key has
    "activation_function": ("gelu_new", "gelu_pytorch_tanh"),
    "layer_norm_epsilon": (LAYERNORM_EPS,),
    "scale_attn_weights": (True,),
    "scale_attn_by_inverse_layer_idx": (False,),
    "reorder_and_upcast_attn": (False,),
    "add_cross_attention": (False,),
    "is_causal": (True,),
    "tie_word_embeddings": (True,),
    "pruned_heads": (None, {}),
    "quantization_config": (None,),
}


def read_config(path: Path) -> GPT2:
    """The shape of the model that a config.json describes; CheckpointError if it is not one of ours."""
    config = read_json(path, MAX_CONFIG_BYTES, invalid)
    if not isinstance(config, dict):
        raise invalid(path, "an object of keys and values", shortened(config))
    if config.get("model_type") != "gpt2":
        raise _unsupported(path, config, "model_type", ("gpt2",))
    for key, values in COMPUTED.items():
        found = config.get(key, values[0])
        if not any(_same(found, value) for value in values):
            raise _unsupported(path, config, key, values)
    layers, heads, channels, positions, vocab_size = (_size(path, config, key) for key in SIZES)
    inner = 4 * channels
    if config.get("n_inner") is not None and not _same(config["n_inner"], inner):
        raise _unsupported(path, config, "n_inner", (None, inner))
    if channels % heads:
        raise invalid(path, f"n_head to divide n_embd={channels:,}", f"n_head={heads:,}")
    return GPT2(layers, heads, channels, positions, vocab_size)


def config_of(model: GPT2, dtype: str, tokenizer: Tokenizer | None) -> dict[str, Any]:
    """The config.json with which transformers computes what we do.

    ConfigError where an op of the model's has no counterpart there.
    """
    for key, ours in (("attention", "attention"), ("activation", "gelu")):
        if getattr(model, key) != ours:
            raise ConfigError(
                f"transformers' GPT-2 has no model.{key}={getattr(model, key)}",
                slug="huggingface-has-no-such-op",
                expected=f"model.{key}={ours}",
                effect="exported, it would compute something else",
            )
    # Null rather than absent: transformers would put in GPT-2's own 50256.
    end_of_text = None if tokenizer is None else tokenizer.end_of_text
    sizes = (model.layers, model.heads, model.channels, model.positions, model.vocab_size)
    stated = {
        key: values[0]
        for key, values in COMPUTED.items()
        if values[0] is not None and key != "is_causal"  # which no class of GPT-2's writes
    }
    return {
        "architectures": ["GPT2LMHeadModel"],
        "model_type": "gpt2",
        **dict(zip(SIZES, sizes, strict=True)),
        "n_inner": None,
        **stated,
        "bos_token_id": end_of_text,
        "eos_token_id": end_of_text,
        "dtype": dtype,
    }


def invalid(path: Path, expected: str, found: str) -> CheckpointError:
    """The error of a file beside the weights that does not say what it must."""
    return CheckpointError(
        f"this is no {path.name} of a GPT-2: {path}",
        slug="huggingface-config-invalid",
        expected=expected,
        found=found,
        do="copy the folder again from where it came",
    )


def _size(path: Path, config: dict[str, Any], key: str) -> int:
    """A size by whichever of its names is there. Two that disagree are refused: transformers would take
    the other name's, and whoever wrote the file may have meant either.
    """
    said = {name: config[name] for name in (key, OTHER_NAMES.get(key, key)) if name in config}
    found = ", ".join(f"{name}={shortened(json.dumps(value))}" for name, value in said.items())
    sizes = list(said.values()) or [None]
    for size in sizes:
        if type(size) is not int or not 1 <= size <= MAX_SIZE:
            expected = f"{key} as a count of 1 or more, below 2**31"
            raise invalid(path, expected, found or "no such key")
    if sizes[0] != sizes[-1]:
        raise invalid(path, f"one value of {key}, which has two names", found)
    return sizes[0]


def _unsupported(
    path: Path, config: dict[str, Any], key: str, values: tuple[Any, ...]
) -> CheckpointError:
    found = shortened(json.dumps(config[key])) if key in config else "no such key"
    return CheckpointError(
        f"this GPT-2 is not the one that we compute: {key}={found}"
        if key in config
        else f"this may be no GPT-2: {path} has no {key}",
        slug="huggingface-config-unsupported",
        where=path,
        expected=f"{key} as " + " or ".join(json.dumps(value) for value in values),
        found=found,
        effect="not loaded: it would give other numbers than the model that was trained",
    )


def _same(found: Any, value: Any) -> bool:
    # True equals 1 in Python, and 1 is not true in JSON; 1 and 1.0 are one number in both.
    return found == value and isinstance(found, bool) == isinstance(value, bool)
