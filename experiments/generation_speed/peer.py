"""The same model in transformers, with its own cache."""

from collections.abc import Callable, Mapping
from importlib.util import find_spec

import numpy as np

from harness.models.gpt2 import GPT2

THREADS = 2
LINEAR = {"qkv": "attn.c_attn", "attproj": "attn.c_proj", "fc": "mlp.c_fc", "fcproj": "mlp.c_proj"}
NORMS = {"ln1": "ln_1", "ln2": "ln_2"}


def why_not() -> str | None:
    """Why there is no transformers column, or None."""
    missing = [name for name in ("torch", "transformers") if find_spec(name) is None]
    return f"not installed: {', '.join(missing)}" if missing else None


def peer_of(
    model: GPT2, weights: Mapping[str, np.ndarray], prompt: list[int], new: int
) -> Callable[[], list[int]]:
    """A function that generates greedily after the prompt, and returns the new tokens."""
    import torch
    from transformers import GPT2Config, GPT2LMHeadModel

    torch.set_num_threads(THREADS)
    config = GPT2Config(
        vocab_size=model.vocab_size,
        n_positions=model.positions,
        n_embd=model.channels,
        n_layer=model.layers,
        n_head=model.heads,
        bos_token_id=None,
        eos_token_id=None,
    )
    peer = GPT2LMHeadModel(config).eval()
    arrays = named_tensors(model, weights)
    named = {name: torch.from_numpy(array.copy()) for name, array in arrays.items()}
    peer.load_state_dict(named, strict=False)
    assert peer.lm_head.weight.data_ptr() == peer.transformer.wte.weight.data_ptr()
    tokens = torch.tensor([prompt])

    def generate() -> list[int]:
        with torch.inference_mode():
            made = peer.generate(
                tokens,
                attention_mask=torch.ones_like(tokens),
                use_cache=True,
                do_sample=False,
                max_new_tokens=new,
                min_new_tokens=new,
            )
        return made[0, len(prompt) :].tolist()

    return generate


def named_tensors(model: GPT2, weights: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Every tensor by transformers' name; its linear layers are (in, out)."""
    found = {
        "transformer.wte.weight": weights["wte"][: model.vocab_size],
        "transformer.wpe.weight": weights["wpe"],
        "transformer.ln_f.weight": weights["lnfw"],
        "transformer.ln_f.bias": weights["lnfb"],
    }
    for layer in range(model.layers):
        block = f"transformer.h.{layer}"
        for ours, theirs in (LINEAR | NORMS).items():
            weight = weights[f"{ours}w.{layer}"]
            found[f"{block}.{theirs}.weight"] = weight.T if ours in LINEAR else weight
            found[f"{block}.{theirs}.bias"] = weights[f"{ours}b.{layer}"]
    return found
