"""A model that was never stored: seeded initial weights, as a ModelFile."""

from pathlib import Path

import numpy as np

from harness.contract import core_ops
from harness.contract.precision import FLOAT32
from harness.models.gpt2 import GPT2, build
from harness.models.initial_values import initial_values
from harness.tokenizers import Tokenizer


class InitialModel:
    """What training of this shape and seed begins with; each tensor is made when it is asked for."""

    def __init__(self, model: GPT2, seed: int = 0, tokenizer: Tokenizer | None = None) -> None:
        self.model = model
        self.seed = seed
        self.tokenizer = tokenizer
        self.path = Path(f"seed-{seed}")
        self.dtype = FLOAT32
        self.description = f"initial weights of seed {seed}"
        self._parameters = build(core_ops(), model, 1, 1)[0].parameters

    def read_into(self, name: str, out: np.ndarray) -> None:
        out[...] = initial_values(self._parameters[name], self.seed)

    def close(self) -> None:
        pass
