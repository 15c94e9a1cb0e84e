"""Say what a stored GPT-2 is, whoever wrote it: a shape, and tensors that stay on the disk until asked.

    with open_model(path) as source:            # llm.c .bin, Hugging Face folder, run, model folder
        parameters.load(source)                 # block by block: memory is the arena's
        write_llmc_model(target, source)        # tensor by tensor

Names and shapes are the harness's own (harness/models/kinds.py): linear weights are (out, in), the
token embedding is padded with zero rows. Whatever a file calls or turns around is settled by its reader.
"""

from pathlib import Path
from typing import Protocol

import numpy as np

from harness.models.gpt2 import GPT2
from harness.tokenizers import Tokenizer


class ModelFile(Protocol):
    """A stored model, open. Readers check header and size when they open, and values as they read."""

    @property
    def path(self) -> Path: ...

    @property
    def description(self) -> str:
        """One line for people: `llm.c model, version 3, float32`."""

    @property
    def model(self) -> GPT2: ...

    @property
    def dtype(self) -> np.dtype:
        """What the file stores: float32, bfloat16, or float16 (Hugging Face's only)."""

    @property
    def tokenizer(self) -> Tokenizer | None:
        """The tokenizer that came with it, None where the file does not say."""

    def read_into(self, name: str, out: np.ndarray) -> None:
        """Fill out, float32 of the tensor's shape, without a temporary above a few MiB.

        Raises CheckpointError where the file ended or changed, NumericsError where a value is not
        finite.
        """

    def close(self) -> None: ...
