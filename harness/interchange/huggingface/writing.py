"""Write a stored model as a folder that transformers' GPT2LMHeadModel loads, one tensor at a time.

The folder is read back and compared before it gets its name (harness/files/staging.py): there is
the whole of it or nothing. Comparing matters: a linear weight is stored turned around, and a file of
the right shape that holds the array as it lay in memory looks the same to every reader.
"""

import hashlib
import json
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np

from harness.errors import CheckpointError, ConfigError, NumericsError, ResourceError
from harness.files.disk import write_file
from harness.files.nonfinite import first_nonfinite
from harness.files.staging import whole_folder
from harness.files.tensor_file import dtype_of
from harness.interchange.huggingface import names
from harness.interchange.huggingface.config import CONFIG, config_of
from harness.interchange.huggingface.folder import HuggingFaceModel
from harness.interchange.huggingface.names import TOKENIZER
from harness.interchange.huggingface.tokenizer import tokenizer_files
from harness.interchange.huggingface.weights import DTYPES, WEIGHTS
from harness.interchange.safetensors_file import BLOCK_BYTES, write_safetensors
from harness.models.gpt2 import GPT2
from harness.models.kinds import tensor_shapes
from harness.models.model_file import ModelFile

# Whose layout it is; some versions of transformers refuse a file without.
METADATA = {"format": "pt"}


def write_huggingface(folder: Path | str, source: ModelFile, dtype: str | None = None) -> None:
    """Write source as a new folder; refused where there is one with something in it.

    dtype: float32, bfloat16 or float16, rounded to the nearest, ties to even; None is source's own.
    """
    folder = Path(folder)
    dtype = source.dtype.name if dtype is None else dtype
    if dtype not in DTYPES:
        raise ConfigError(
            f"a Hugging Face GPT-2 is not written in {dtype}",
            slug="huggingface-dtype-unknown",
            there_is=", ".join(DTYPES),
        )
    config = config_of(source.model, dtype, source.tokenizer)
    _check_free(folder)
    writing = _Writing(source, dtype)
    try:
        with whole_folder(folder) as stage:
            listed = _listed(source.model, dtype)
            write_safetensors(stage / WEIGHTS, listed, writing.pieces(), METADATA)
            _write_json(stage / CONFIG, config)
            if source.tokenizer is not None:
                _write_json(stage / TOKENIZER, source.tokenizer.to_dict())
                for name, content in tokenizer_files(source.tokenizer).items():
                    write_file(stage / name, [content])
            _compare(stage, folder, writing.digests)
    except OSError as error:
        raise _not_written(folder, str(error)) from error


class _Writing:
    """The payload of the file; digests are of the numbers that each tensor must come back with."""

    def __init__(self, source: ModelFile, dtype: str) -> None:
        self._source, self._dtype = source, dtype_of(dtype)
        self.digests: dict[str, bytes] = {}

    def pieces(self) -> Iterator[memoryview]:
        model, V = self._source.model, self._source.model.vocab_size
        space = np.empty(_largest(model), np.float32)
        for name, shape in tensor_shapes(model).items():
            values = space[: int(np.prod(shape))].reshape(shape)
            self._source.read_into(name, values)
            if name == "wte":
                values = values[:V]  # transformers has no padding
            self._round(name, values)
            self.digests[name] = _digest(values)
            stored = values.T if names.is_turned(name) else values
            for start, stop in _blocks(stored):
                part = np.ascontiguousarray(stored[start:stop], self._dtype)
                yield part.reshape(-1).view(np.uint8).data

    def _round(self, name: str, values: np.ndarray) -> None:
        """Round values in place to what the file's dtype can hold, block by block."""
        if first_nonfinite(values) is not None:
            raise NumericsError(
                f"not a finite number in {name}",
                slug="huggingface-not-finite",
                where=self._source.path,
                effect="nothing is written",
            )
        if self._dtype.itemsize == 4:
            return
        for start, stop in _blocks(values):
            part = values[start:stop]
            with np.errstate(over="ignore"):  # it is reported below, with the number
                rounded = part.astype(self._dtype)
            finite = np.isfinite(rounded)
            if not finite.all():
                raise NumericsError(
                    f"{name} has a number beyond {self._dtype.name}",
                    slug="huggingface-overflow",
                    where=self._source.path,
                    found=f"{part.reshape(-1)[int(np.argmin(finite))]:.8g}",
                    do="write it in float32",
                )
            part[:] = rounded


def _compare(stage: Path, folder: Path, digests: dict[str, bytes]) -> None:
    """Read the folder as anybody's and compare every tensor with what was to be written."""
    with HuggingFaceModel(stage) as written:
        V = written.model.vocab_size
        space = np.empty(_largest(written.model), np.float32)
        for name, shape in tensor_shapes(written.model).items():
            values = space[: int(np.prod(shape))].reshape(shape)
            try:
                written.read_into(name, values)
            except CheckpointError as error:
                raise _not_written(
                    folder, f"{name} can't be read back: {error.headline}"
                ) from error
            if _digest(values[:V] if name == "wte" else values) != digests[name]:
                raise _not_written(folder, f"{name} is not what was to be written, read back")


def _listed(model: GPT2, dtype: str) -> list[tuple[str, str, tuple[int, ...]]]:
    return [
        (names.PREFIX + names.theirs(name), dtype, shape)
        for name, shape in names.stored_shapes(model).items()
    ]


def _largest(model: GPT2) -> int:
    return max(int(np.prod(shape)) for shape in tensor_shapes(model).values())


def _blocks(values: np.ndarray) -> Iterable[tuple[int, int]]:
    """Where blocks of rows begin and end; a part of a vector is one as well."""
    row = values.itemsize * int(np.prod(values.shape[1:]))
    height = max(1, BLOCK_BYTES // row)
    return ((start, min(start + height, len(values))) for start in range(0, len(values), height))


def _digest(values: np.ndarray) -> bytes:
    return hashlib.sha256(values.reshape(-1).view(np.uint8).data).digest()


def _write_json(path: Path, content: object) -> None:
    write_file(path, [json.dumps(content, indent=2, ensure_ascii=False).encode() + b"\n"])


def _check_free(folder: Path) -> None:
    try:
        taken = folder.exists() and (not folder.is_dir() or any(folder.iterdir()))
    except OSError as error:
        raise _not_written(folder, str(error)) from error
    if taken:
        raise ConfigError(
            f"there is something at {folder}",
            slug="huggingface-target-taken",
            where=folder.absolute(),
            expected="a name that is free, or an empty folder",
            do="another name; nothing is overwritten",
        )


def _not_written(folder: Path, found: str) -> ResourceError:
    return ResourceError(
        f"model can't be written: {folder}",
        slug="huggingface-not-written",
        where=folder,
        found=found,
        effect="nothing has this name",
    )
