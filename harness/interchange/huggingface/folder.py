"""Read a GPT-2 folder of Hugging Face's, and write one that transformers reads.

    config.json                      the shape; config.py
    model.safetensors                the tensors by transformers' names; names.py
      or model.safetensors.index.json, and the several files it names; weights.py
    harness_tokenizer.json           the tokenizer's record, where we wrote the folder
    vocab.json, tokenizer.json       whether another tokenizer is GPT-2's; tokenizer.py

Nothing here needs torch or transformers; writing is in writing.py.
"""

from pathlib import Path

import numpy as np

from harness import tokenizers
from harness.errors import CheckpointError, NumericsError
from harness.files.json_file import read_json
from harness.files.nonfinite import first_nonfinite
from harness.interchange.closable import Closable
from harness.interchange.huggingface import names
from harness.interchange.huggingface.config import CONFIG, invalid, read_config
from harness.interchange.huggingface.names import TOKENIZER
from harness.interchange.huggingface.tokenizer import has_another_vocabulary
from harness.interchange.huggingface.weights import Weights
from harness.models.gpt2 import GPT2
from harness.models.kinds import tensor_shapes
from harness.tokenizers import Tokenizer
from harness.tokenizers.gpt2 import Gpt2Tokenizer

MAX_TOKENIZER_BYTES = 16 << 20  # 65,536 pieces of 255 bytes, or every character of Unicode


class HuggingFaceModel(Closable):
    """A GPT-2 folder of Hugging Face's, open; a ModelFile."""

    def __init__(self, folder: Path | str) -> None:
        self._path = Path(folder)
        self._model = read_config(self._path / CONFIG)
        self._tokenizer = _tokenizer_of(self._path, self._model)
        self._weights = Weights(self._path, self._model)

    @property
    def path(self) -> Path:
        return self._path

    @property
    def description(self) -> str:
        count = len(self._weights.files)
        files = "" if count == 1 else f", {count} files"
        return f"Hugging Face GPT-2, {self.dtype.name}{files}"

    @property
    def model(self) -> GPT2:
        return self._model

    @property
    def dtype(self) -> np.dtype:
        return self._weights.dtype

    @property
    def tokenizer(self) -> Tokenizer | None:
        return self._tokenizer

    def read_into(self, name: str, out: np.ndarray) -> None:
        """Fill out, float32 of the tensor's shape; linear weights are turned around block by block."""
        assert out.dtype == np.float32, f"{name}: {out.dtype}"
        file, theirs = self._weights.find(name)
        if name == "wte":
            V = self._model.vocab_size
            out[V:] = 0
            file.read_into(theirs, out[:V])
        else:
            file.read_into(theirs, out, transposed=names.is_turned(name))
        index = first_nonfinite(out)
        if index is not None:
            stored = index[::-1] if names.is_turned(name) else index
            raise NumericsError(
                f"not a finite number: {theirs}[{', '.join(map(str, stored))}]",
                slug="huggingface-not-finite",
                where=file.path,
                found=str(out[index]),
                effect="the model is not read further",
            )
        if name == "wte":
            self._check_head(out[: self._model.vocab_size])

    def check(self) -> None:
        """Read every tensor once, and raise what is wrong with the first."""
        for name, shape in tensor_shapes(self._model).items():
            self.read_into(name, np.empty(shape, np.float32))

    def close(self) -> None:
        self._weights.close()

    def _check_head(self, wte_VC: np.ndarray) -> None:
        """The head, where a file has it, is the token embedding."""
        file = self._weights.head
        if file is None:
            return
        for start, block in file.blocks(names.HEAD):
            ours = wte_VC[start : start + len(block)]
            differs = (block != ours).any(axis=1)
            if differs.any():
                row = start + int(np.argmax(differs))
                raise CheckpointError(
                    f"{names.HEAD} is not the token embedding",
                    slug="huggingface-head-not-tied",
                    where=file.path,
                    expected="the same numbers: GPT-2's head is tied to wte.weight",
                    found=f"other ones in row {row:,}",
                    effect="not loaded: this head can't be held",
                )


def _tokenizer_of(folder: Path, model: GPT2) -> Tokenizer | None:
    """The tokenizer of our own record; without it GPT-2's, where the vocabulary has its size and no file
    says that it is another. None where it is not known.
    """
    path = folder / TOKENIZER
    if not path.exists():
        if model.vocab_size != Gpt2Tokenizer.vocab_size or has_another_vocabulary(folder):
            return None
        return tokenizers.get("gpt2")
    tokenizer = tokenizers.from_dict(read_json(path, MAX_TOKENIZER_BYTES, invalid))
    if tokenizer.vocab_size > model.vocab_size:
        expected = f"at most {model.vocab_size:,} tokens, as {CONFIG} has"
        raise invalid(path, expected, f"{tokenizer.vocab_size:,}")
    return tokenizer
