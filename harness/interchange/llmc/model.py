"""llm.c's model files: `gpt2_124M.bin` (version 3, float32), `gpt2_124M_bf16.bin` (version 5).

    slot 2      positions           slot 3      vocabulary V        slot 4      layers
    slot 5      heads               slot 6      channels C          slot 7      V padded to 128s
    byte 1,024  the sixteen kinds, in the order of layout.py, all in one number format

The CUDA trainer's `model_%08d.bin` is the same. It can hold anything in the padding rows of the
token embedding; they are read as zero here, and written as zero, because its own kernels rely on that.
"""

from collections.abc import Iterator
from pathlib import Path

import ml_dtypes
import numpy as np

from harness.errors import ConfigError, NumericsError
from harness.interchange.closable import Closable
from harness.interchange.llmc import header as llmc_header
from harness.interchange.llmc.file import (
    BLOCK_BYTES,
    LlmcFile,
    finite_bytes,
    require_finite,
    write_llmc_file,
)
from harness.interchange.llmc.header import HEADER_BYTES
from harness.interchange.llmc.layout import Run, clear_padding, largest
from harness.models.gpt2 import GPT2, STANDARD_OPS
from harness.models.kinds import tensor_shapes
from harness.models.model_file import ModelFile
from harness.tokenizers import Tokenizer

VERSIONS = {3: np.dtype(np.float32), 5: np.dtype(ml_dtypes.bfloat16)}
SIZES = {
    2: "positions",
    3: "a vocabulary",
    4: "layers",
    5: "heads",
    6: "channels",
    7: "a padded vocabulary",
}


class LlmcModel(Closable):
    """A model file of llm.c's, open; a ModelFile."""

    tokenizer: Tokenizer | None = None  # a file of its own, which opening.py looks for

    def __init__(self, path: Path | str) -> None:
        self._path = Path(path)
        self._file = LlmcFile(self._path, llmc_header.MODEL, VERSIONS, SIZES)
        try:
            self._dtype = VERSIONS[self._file.header.version]
            self._model = self._checked_model()
        except BaseException:
            self.close()
            raise
        self._run = Run(self._model)

    @property
    def path(self) -> Path:
        return self._path

    @property
    def description(self) -> str:
        return f"llm.c model, version {self._file.header.version}, {self._dtype.name}"

    @property
    def model(self) -> GPT2:
        return self._model

    @property
    def dtype(self) -> np.dtype:
        return self._dtype

    def read_into(self, name: str, out: np.ndarray) -> None:
        """Fill out, float32 of the tensor's shape: straight from the file, or by blocks of 4 MiB."""
        assert out.shape == self._run.shape(name), f"{name}: {out.shape}"
        start = HEADER_BYTES + self._dtype.itemsize * self._run.offset(name)
        self._file.read_floats(start, out, self._dtype)
        clear_padding(self._model, name, out)
        require_finite(out, name, self._path)

    def check(self) -> None:
        """Read every tensor once, and raise what is wrong with the first."""
        space = np.empty(largest(self._model), np.float32)
        for name, shape in tensor_shapes(self._model).items():
            self.read_into(name, space[: self._run.length(name)].reshape(shape))

    def close(self) -> None:
        self._file.close()

    def _checked_model(self) -> GPT2:
        header, path = self._file.header, self._path
        llmc_header.require_positive(header, path, SIZES)
        if header[6] % header[5]:
            expected = f"heads that divide the {header[6]} channels"
            raise llmc_header.damaged(path, expected, f"{header[5]} heads")
        model = GPT2(
            layers=header[4],
            heads=header[5],
            channels=header[6],
            positions=header[2],
            vocab_size=header[3],
        )
        if header[7] != model.padded_vocab:
            expected = f"a vocabulary of {model.vocab_size:,} padded to {model.padded_vocab:,}"
            raise llmc_header.damaged(path, expected, f"{header[7]:,}")
        self._file.require_size(
            model_bytes(model, self._dtype),
            f"{model.layers:,} layers, {model.channels:,} channels, {model.positions:,} positions, "
            f"vocabulary {model.vocab_size:,}, {self._dtype.name}",
        )
        return model


def model_bytes(model: GPT2, dtype: np.dtype) -> int:
    """The size of the file: 497,904,640 for GPT-2 124M in float32."""
    return HEADER_BYTES + dtype.itemsize * Run(model).size


def write_llmc_model(path: Path | str, source: ModelFile, dtype: str = "float32") -> None:
    """Write a stored model as llm.c's, one tensor in memory at a time; whole or not at all.

    dtype: float32 (version 3), or bfloat16 (version 5), rounded to the nearest, ties to even.
    """
    versions = {stored.name: version for version, stored in VERSIONS.items()}
    if dtype not in versions:
        raise ConfigError(
            f"llm.c has no models in {dtype}",
            slug="llmc-dtype-unknown",
            there_is=", ".join(versions),
        )
    for place, standard in STANDARD_OPS.items():
        if getattr(source.model, place) != standard:
            raise ConfigError(
                f"llm.c's GPT-2 has no model.{place}={getattr(source.model, place)}",
                slug="llmc-has-no-such-op",
                where=source.path,
                do="model_from=PATH of the model itself, which keeps the op's name",
            )
    version, path = versions[dtype], Path(path)
    pieces = _pieces(path, source, version)
    write_llmc_file(path, pieces, model_bytes(source.model, VERSIONS[version]))


def _pieces(path: Path, source: ModelFile, version: int) -> Iterator[bytes | memoryview]:
    model = source.model
    sizes = (model.positions, model.vocab_size, model.layers, model.heads, model.channels)
    slots = dict(zip(SIZES, (*sizes, model.padded_vocab), strict=True))
    yield llmc_header.encode({0: llmc_header.MODEL, 1: version, **slots})
    run, space = Run(model), np.empty(largest(model), np.float32)
    for name, shape in tensor_shapes(model).items():
        values = space[: run.length(name)].reshape(shape)
        source.read_into(name, values)
        clear_padding(model, name, values)
        if VERSIONS[version].itemsize == 4:
            yield finite_bytes(values, name, path)
        else:
            require_finite(values, name, path)
            yield from _rounded(values, name, path)


def _rounded(values: np.ndarray, name: str, path: Path) -> Iterator[memoryview]:
    """values as bfloat16, block by block."""
    flat, block = values.reshape(-1), BLOCK_BYTES // 2
    for start in range(0, flat.size, block):
        part = flat[start : start + block]
        rounded = part.astype(ml_dtypes.bfloat16)
        finite = np.isfinite(rounded)
        if not finite.all():
            raise NumericsError(
                f"{name} has a number beyond bfloat16",
                slug="llmc-overflow",
                where=path,
                expected=f"at most {float(ml_dtypes.finfo(ml_dtypes.bfloat16).max):.3g}",
                found=f"{part[int(np.argmin(finite))]:.8g}",
                do="write it in float32",
            )
        yield rounded.view("<u2").view(np.uint8).data
