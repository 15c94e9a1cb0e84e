"""Weights drawn so that no part of a GPT-2 can be left out unnoticed.

GPT-2's initial values hide bugs: a bias of 0 may be forgotten, a LayerNorm weight of 1 left out, and
with weights of 0.02 every attention is all but uniform. Here rows of matrices have length 1, on average,
so that scores and logits are of order 1, and biases and LayerNorm weights are random.
"""

from pathlib import Path

import numpy as np

from harness.contract.precision import FLOAT32
from harness.models.gpt2 import GPT2
from harness.models.initial_values import named_stream
from harness.models.kinds import MATRICES, kind_of

SPREAD = 0.2  # of biases, and of LayerNorm weights about 1


class SeededModel:
    """A ModelFile whose tensors are drawn when they are read, each from a stream of its own."""

    dtype = FLOAT32
    tokenizer = None

    def __init__(self, model: GPT2, seed: int) -> None:
        self.model = model
        self.seed = seed
        self.path = Path("-")
        self.description = f"random weights, seed {seed}"

    def read_into(self, name: str, out: np.ndarray) -> None:
        rng = named_stream(self.seed, name)
        rng.standard_normal(out=out, dtype=np.float32)
        kind = kind_of(name)
        out *= out.shape[-1] ** -0.5 if kind in MATRICES else SPREAD
        if kind in ("ln1w", "ln2w", "lnfw"):
            out += 1
        if kind == "wte":
            out[self.model.vocab_size :] = 0

    def close(self) -> None:
        pass

    def tokens(self, B: int, T: int) -> tuple[np.ndarray, np.ndarray]:
        """Random tokens and their targets, x_BT and y_BT: each is the next token."""
        size = (B, T + 1)
        drawn = named_stream(self.seed, "tokens").integers(0, self.model.vocab_size, size, np.int32)
        return drawn[:, :-1].copy(), drawn[:, 1:].copy()
