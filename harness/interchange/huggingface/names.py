"""What transformers calls the tensors of a GPT-2, and which of them it stores turned around.

    ours       shape       theirs                            stored as
    wte        (Vp, C)     transformer.wte.weight            (V, C): the vocabulary is not padded
    qkvw.3     (3C, C)     transformer.h.3.attn.c_attn.weight   (C, 3C): its linear layers are (in, out)

A model without its head has no `transformer.` in front. Files of older versions also have
the causal mask of every layer, `attn.bias` and `attn.masked_bias`, which are not weights.
Source: transformers, modeling_gpt2.py, the modules of GPT2Model; pytorch_utils.py, Conv1D.
"""

import re

from harness.contract import Shape
from harness.models.gpt2 import GPT2
from harness.models.kinds import tensor_shapes

TOKENIZER = "harness_tokenizer.json"
"""Our own record of the tokenizer, in a folder that we wrote."""

PREFIX = "transformer."
HEAD = "lm_head.weight"  # the token embedding once more, where a file has it at all

OF_THE_MODEL = {
    "wte": "wte.weight",
    "wpe": "wpe.weight",
    "lnfw": "ln_f.weight",
    "lnfb": "ln_f.bias",
}
OF_A_LAYER = {
    "ln1": "ln_1",
    "qkv": "attn.c_attn",
    "attproj": "attn.c_proj",
    "ln2": "ln_2",
    "fc": "mlp.c_fc",
    "fcproj": "mlp.c_proj",
}
PARTS = {"w": "weight", "b": "bias"}
TURNED = frozenset({"qkvw", "attprojw", "fcw", "fcprojw"})

_MASK = re.compile(rf"({re.escape(PREFIX)})?h\.\d+\.attn\.(masked_)?bias", re.ASCII)


def theirs(name: str) -> str:
    """Our name -> theirs without the prefix: `qkvw.3` -> `h.3.attn.c_attn.weight`."""
    kind, _, layer = name.partition(".")
    if not layer:
        return OF_THE_MODEL[kind]
    return f"h.{layer}.{OF_A_LAYER[kind[:-1]]}.{PARTS[kind[-1]]}"


def is_turned(name: str) -> bool:
    return name.partition(".")[0] in TURNED


def is_mask(name: str) -> bool:
    """Whether one of theirs is a buffer of old files and no weight."""
    return _MASK.fullmatch(name) is not None


def stored_shapes(model: GPT2) -> dict[str, Shape]:
    """Our name -> the shape that the tensor has in their files."""
    shapes = tensor_shapes(model)
    shapes["wte"] = (model.vocab_size, model.channels)
    return {name: shape[::-1] if is_turned(name) else shape for name, shape in shapes.items()}
