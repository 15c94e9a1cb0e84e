"""The sixteen kinds of parameters of a GPT-2, in the order in which llm.c stores them.

A linear weight is (out, in). A kind that every layer has is one tensor per layer here, called
`qkvw.3`; llm.c's files hold all layers of a kind, then the next kind.
Source: llm.c, train_gpt2.c, `ParameterTensors`.
"""

from harness.contract import Shape
from harness.models.gpt2 import GPT2

KINDS = (
    "wte", "wpe",
    "ln1w", "ln1b", "qkvw", "qkvb", "attprojw", "attprojb",
    "ln2w", "ln2b", "fcw", "fcb", "fcprojw", "fcprojb",
    "lnfw", "lnfb",
)  # fmt: skip
OF_THE_MODEL = frozenset({"wte", "wpe", "lnfw", "lnfb"})
MATRICES = frozenset({"wte", "wpe", "qkvw", "attprojw", "fcw", "fcprojw"})
"""The kinds that weight decay applies to under `decay=matrices`."""


def kind_shapes(model: GPT2) -> dict[str, Shape]:
    """Kind -> shape of one tensor of it; wte is padded to (V, C)."""
    C = model.channels
    return {
        "wte": (model.padded_vocab, C),
        "wpe": (model.positions, C),
        "ln1w": (C,),
        "ln1b": (C,),
        "qkvw": (3 * C, C),
        "qkvb": (3 * C,),
        "attprojw": (C, C),
        "attprojb": (C,),
        "ln2w": (C,),
        "ln2b": (C,),
        "fcw": (4 * C, C),
        "fcb": (4 * C,),
        "fcprojw": (C, 4 * C),
        "fcprojb": (C,),
        "lnfw": (C,),
        "lnfb": (C,),
    }


def tensor_names(model: GPT2, kind: str) -> list[str]:
    """The tensors of a kind: one, or one of each layer."""
    if kind in OF_THE_MODEL:
        return [kind]
    return [f"{kind}.{layer}" for layer in range(model.layers)]


def tensor_shapes(model: GPT2) -> dict[str, Shape]:
    """Tensor name -> shape, in the order of llm.c's files."""
    shapes = kind_shapes(model)
    return {name: shapes[kind] for kind in KINDS for name in tensor_names(model, kind)}


def kind_of(name: str) -> str:
    """`qkvw` of `qkvw.3`."""
    return name.partition(".")[0]
