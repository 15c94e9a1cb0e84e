"""A GPT-2 folder as transformers writes it, made with the safetensors package; written out by hand."""

import json

import ml_dtypes
import numpy as np
import pytest
import safetensors.numpy

from harness.errors import HarnessError
from harness.interchange.huggingface.folder import HuggingFaceModel
from harness.models.gpt2 import GPT2

LAYERS, HEADS, C, POSITIONS, V = 2, 2, 6, 5, 130
PADDED_V = 256
BFLOAT16 = np.dtype(ml_dtypes.bfloat16)
MODEL = GPT2(LAYERS, HEADS, C, POSITIONS, V)

CONFIG = {
    "activation_function": "gelu_new",
    "add_cross_attention": False,
    "architectures": ["GPT2LMHeadModel"],
    "attn_pdrop": 0.1,
    "bos_token_id": None,
    "dtype": "float32",
    "eos_token_id": None,
    "layer_norm_epsilon": 1e-05,
    "model_type": "gpt2",
    "n_embd": C,
    "n_head": HEADS,
    "n_inner": None,
    "n_layer": LAYERS,
    "n_positions": POSITIONS,
    "reorder_and_upcast_attn": False,
    "scale_attn_by_inverse_layer_idx": False,
    "scale_attn_weights": True,
    "tie_word_embeddings": True,
    "vocab_size": V,
}

# Theirs, without the prefix: ours, and the stored shape.
NAMES = {
    "wte.weight": ("wte", (V, C)),
    "wpe.weight": ("wpe", (POSITIONS, C)),
    "ln_f.weight": ("lnfw", (C,)),
    "ln_f.bias": ("lnfb", (C,)),
}
for layer in range(LAYERS):
    NAMES |= {
        f"h.{layer}.ln_1.weight": (f"ln1w.{layer}", (C,)),
        f"h.{layer}.ln_1.bias": (f"ln1b.{layer}", (C,)),
        f"h.{layer}.attn.c_attn.weight": (f"qkvw.{layer}", (C, 3 * C)),
        f"h.{layer}.attn.c_attn.bias": (f"qkvb.{layer}", (3 * C,)),
        f"h.{layer}.attn.c_proj.weight": (f"attprojw.{layer}", (C, C)),
        f"h.{layer}.attn.c_proj.bias": (f"attprojb.{layer}", (C,)),
        f"h.{layer}.ln_2.weight": (f"ln2w.{layer}", (C,)),
        f"h.{layer}.ln_2.bias": (f"ln2b.{layer}", (C,)),
        f"h.{layer}.mlp.c_fc.weight": (f"fcw.{layer}", (C, 4 * C)),
        f"h.{layer}.mlp.c_fc.bias": (f"fcb.{layer}", (4 * C,)),
        f"h.{layer}.mlp.c_proj.weight": (f"fcprojw.{layer}", (4 * C, C)),
        f"h.{layer}.mlp.c_proj.bias": (f"fcprojb.{layer}", (C,)),
    }


def random_weights(seed=1, dtype=np.float32):
    """Theirs, without the prefix -> as stored."""
    rng = np.random.default_rng(seed)
    return {name: rng.standard_normal(shape).astype(dtype) for name, (_, shape) in NAMES.items()}


def ours(weights):
    """What the harness calls them, as it holds them."""
    found = {}
    for name, (our_name, _) in NAMES.items():
        values = weights[name].astype(np.float32)
        linear = values.ndim == 2 and name.startswith("h.")
        found[our_name] = values.T.copy() if linear else values
    found["wte"] = np.concatenate([found["wte"], np.zeros((PADDED_V - V, C), np.float32)])
    return found


def prefixed(weights):
    return {f"transformer.{name}": values for name, values in weights.items()}


def save(path, arrays):
    """The file that the safetensors package makes of arrays."""
    safetensors.numpy.save_file(arrays, path, metadata={"format": "pt"})


def write_folder(folder, arrays, config=CONFIG):
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config))
    save(folder / "model.safetensors", arrays)
    return folder


def write_shards(folder, arrays, count=3, config=CONFIG):
    """arrays dealt out to count files, and the index."""
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config))
    index = {}
    for shard in range(count):
        file = f"model-{shard + 1:05}-of-{count:05}.safetensors"
        part = {name: arrays[name] for name in list(arrays)[shard::count]}
        save(folder / file, part)
        index |= dict.fromkeys(part, file)
    content = {"metadata": {"total_size": 1}, "weight_map": index}
    (folder / "model.safetensors.index.json").write_text(json.dumps(content))
    return folder


def refusal(folder):
    """The one error of opening and reading all of folder."""
    with pytest.raises(HarnessError) as caught, HuggingFaceModel(folder) as found:
        found.check()
    assert len(str(caught.value)) < 2000
    return caught.value
