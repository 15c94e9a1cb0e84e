"""A stored model with an adapter added to its weights, or taken out of them again.

    with open_model(path) as source:
        write_huggingface(folder, merged(source, lora, arrays.__getitem__))

A view: tensors are read from the source when they are asked for, and what the adapter adds is computed
then, a block of rows at a time.
"""

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from harness.errors import ConfigError, NumericsError
from harness.models.gpt2 import GPT2
from harness.models.kinds import kind_of
from harness.models.lora import TARGETS, Lora, check_pairs, pair_names
from harness.models.model_file import ModelFile
from harness.tokenizers import Tokenizer

BLOCK_NUMBERS = 1 << 18  # of float64: 2 MiB


def merged(
    source: ModelFile, lora: Lora, read: Callable[[str], np.ndarray], sign: int = 1
) -> ModelFile:
    """The model whose weights are W + sign * scale * b · a.

    read: the adapter's parameter name -> its values. sign: 1 merges, -1 takes what was merged out again.
    The product is float64, and the sum is rounded once. What is written as bfloat16 keeps eight bits:
    small changes are lost there.
    Raises CheckpointError where the adapter does not fit, NumericsError where it is not finite.
    """
    assert sign in (1, -1), sign
    check_pairs(lora, source.model, read)
    return MergedModel(source, lora, read, sign)


def with_adapter(source: ModelFile, folder: Path | str, sign: int = 1) -> ModelFile:
    """The model with the adapter of a folder in peft's layout; without it again for sign -1."""
    from harness.interchange.huggingface.peft import load_peft

    if isinstance(source, MergedModel):
        raise ConfigError(
            f"the model has an adapter already: {source.path}",
            slug="adapter-twice",
            found=source.description,
            effect="a second one would be added to the sum",
            do="the model that the run began with; or leave the adapter out",
        )
    lora, arrays = load_peft(Path(os.path.expanduser(folder)), source.model)
    return merged(source, lora, arrays.__getitem__, sign)


@dataclass(frozen=True)
class MergedModel:
    """See merged(). Closing it closes the source."""

    source: ModelFile
    lora: Lora
    read: Callable[[str], np.ndarray]
    sign: int

    @property
    def path(self) -> Path:
        return self.source.path

    @property
    def description(self) -> str:
        joined = "with" if self.sign > 0 else "without"
        return f"{self.source.description}, {joined} {self.lora}"

    @property
    def model(self) -> GPT2:
        return self.source.model

    @property
    def dtype(self) -> np.dtype:
        return self.source.dtype

    @property
    def tokenizer(self) -> Tokenizer | None:
        return self.source.tokenizer

    def read_into(self, name: str, out: np.ndarray) -> None:
        self.source.read_into(name, out)
        kind, _, layer = name.partition(".")
        if not kind.endswith("w"):
            return
        for target in self.lora.of_kind(kind_of(name)[:-1]):
            a, b = (self.read(pair) for pair in pair_names(target, int(layer)))
            first, count = TARGETS[target].rows(self.model)
            _add_product(out[first : first + count], b, a, self.sign * self.lora.scale)
        if not np.isfinite(out).all():
            raise NumericsError(
                f"with the adapter, {name} is not finite",
                slug="merge-not-finite",
                where=self.path,
                effect="weights and adapter together are beyond what float32 holds",
            )

    def close(self) -> None:
        self.source.close()


def _add_product(out_SI: np.ndarray, b_SR: np.ndarray, a_RI: np.ndarray, scale: float) -> None:
    """out += scale * b · a, each number rounded once."""
    height = max(1, BLOCK_NUMBERS // out_SI.shape[1])
    a = a_RI.astype(np.float64)
    for start in range(0, len(out_SI), height):
        rows = slice(start, start + height)
        product = b_SR[rows].astype(np.float64) @ a
        product *= scale
        product += out_SI[rows]
        with np.errstate(over="ignore"):
            out_SI[rows] = product
