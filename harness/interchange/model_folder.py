"""The harness's own stored model: what `harness import` makes, and `model_from` takes.

    model.safetensors   the tensors of harness/models/kinds.py, float32 or bfloat16
    model.json          shape, tokenizer, what it was made from, size and sha256 of the tensors

Once it has its name there is all of it: harness/files/staging.py.
"""

import dataclasses
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from harness import tokenizers
from harness.errors import CheckpointError, HarnessError, ResourceError, shortened
from harness.files.checkpoint_names import damaged
from harness.files.disk import FileRecord, measure, write_file
from harness.files.json_file import read_json
from harness.files.staging import whole_folder
from harness.files.tensor_file import dtype_of
from harness.interchange.safetensors_file import SafetensorsFile, write_safetensors
from harness.interchange.stored_tensors import STORED, check_tensors, read_finite
from harness.models.gpt2 import GPT2, SIZES, STANDARD_OPS
from harness.models.kinds import tensor_shapes
from harness.models.model_file import ModelFile
from harness.tokenizers import Tokenizer

DESCRIPTION = "model.json"
TENSORS = "model.safetensors"
FORMAT = "gpt2-harness model"
VERSION = 1
MADE_FROM = "model folder, made from "
MAX_DESCRIPTION_BYTES = 16 << 20  # bytes; a tokenizer of 50,000 pieces takes 1 MB


class ModelFolder:
    """A model folder, open and verified; a ModelFile."""

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path)
        content = _read_description(self.path / DESCRIPTION)
        self.model = _model(content, self.path / DESCRIPTION)
        self.tokenizer = _tokenizer(content, self.path / DESCRIPTION)
        self.description = MADE_FROM + content["made_from"]
        _check_record(content["tensors"], self.path)
        self._file = SafetensorsFile(self.path / TENSORS)
        try:
            self.dtype = check_tensors(self._file, self.model)
        except BaseException:
            self.close()
            raise

    def read_into(self, name: str, out: np.ndarray) -> None:
        read_finite(self._file, self.model, name, out, self.path)

    def close(self) -> None:
        self._file.close()


def write_model_folder(path: Path | str, source: ModelFile) -> None:
    """Write a stored model as a new folder, one tensor in memory at a time.

    Raises CheckpointError where there is one with something in it already.
    """
    path = Path(path)
    if path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise already_there(path)
    try:
        with whole_folder(path) as stage:
            record = _write_tensors(stage / TENSORS, source)
            write_file(stage / DESCRIPTION, [_description(source, record)])
    except OSError as error:
        raise ResourceError(
            f"model folder can't be written: {path}", slug="model-not-written", found=error
        ) from error


def _write_tensors(path: Path, source: ModelFile) -> FileRecord:
    shapes = tensor_shapes(source.model)
    listed = [(name, _stored_as(source), shape) for name, shape in shapes.items()]
    return write_safetensors(path, listed, _pieces(source))


def already_there(path: Path) -> CheckpointError:
    """The error of a target that holds something: nothing is overwritten."""
    return CheckpointError(
        f"there is something at {path} already",
        slug="model-exists",
        effect="nothing was written",
        do="give another name, or delete it",
    )


def _stored_as(source: ModelFile) -> str:
    """The source's own dtype; float32 for float16, whose range bfloat16 would round."""
    return source.dtype.name if source.dtype.name in STORED else "float32"


def _pieces(source: ModelFile) -> Iterator[memoryview]:
    stored = dtype_of(_stored_as(source))
    for name, shape in tensor_shapes(source.model).items():
        values = np.empty(shape, np.float32)
        source.read_into(name, values)
        yield values.astype(stored, copy=False).reshape(-1).view(np.uint8).data


def _description(source: ModelFile, record: FileRecord) -> bytes:
    content = {
        "format": FORMAT,
        "version": VERSION,
        "model": {name: getattr(source.model, name) for name in (*SIZES, *STANDARD_OPS)},
        "made_from": source.description.removeprefix(MADE_FROM),
        "tokenizer": None if source.tokenizer is None else source.tokenizer.to_dict(),
        "tensors": dataclasses.asdict(record),
    }
    return (json.dumps(content, indent=2, allow_nan=False) + "\n").encode()


def _read_description(path: Path) -> dict[str, Any]:
    content = read_json(path, MAX_DESCRIPTION_BYTES)
    wanted = {"format", "version", "model", "made_from", "tokenizer", "tensors"}
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise damaged(path, expected=f"a description of format '{FORMAT}'", found="another file")
    if content.get("version") != VERSION:
        found = f"version {shortened(content.get('version'))}"
        raise damaged(path, expected=f"version {VERSION}", found=found)
    if content.keys() != wanted or not isinstance(content["made_from"], str):
        raise damaged(path, expected=", ".join(sorted(wanted)), found="other fields")
    return content


def _model(content: dict[str, Any], path: Path) -> GPT2:
    shape = content["model"]
    fits = (
        isinstance(shape, dict)
        and shape.keys() == {*SIZES, *STANDARD_OPS}
        and all(type(shape[name]) is int and 0 < shape[name] < 2**31 for name in SIZES)
        and all(type(shape[place]) is str for place in STANDARD_OPS)
        and shape["channels"] % shape["heads"] == 0
    )
    if not fits:
        expected = f"{', '.join((*SIZES, *STANDARD_OPS))} that a GPT-2 can have"
        raise damaged(path, expected=expected, found=shortened(shape))
    return GPT2(**shape)


def _tokenizer(content: dict[str, Any], path: Path) -> Tokenizer | None:
    if content["tokenizer"] is None:
        return None
    try:
        return tokenizers.from_dict(content["tokenizer"])
    except HarnessError as error:
        raise damaged(path, expected="the record of a tokenizer", found=error.headline) from None


def _check_record(record: Any, folder: Path) -> None:
    """The tensors are those that were described: safetensors files carry no checksum."""
    if not isinstance(record, dict) or record.keys() != {"bytes", "sha256"}:
        expected = "size and sha256 of the tensors"
        raise damaged(folder / DESCRIPTION, expected=expected, found=shortened(record))
    size = record["bytes"] if type(record["bytes"]) is int else -1
    found = measure(folder / TENSORS, size)
    if dataclasses.asdict(found) != record:
        raise damaged(
            folder / TENSORS,
            expected=f"{record['bytes']} bytes, sha256 {record['sha256']}"[:160],
            found=f"{found.bytes:,} bytes, sha256 {found.sha256 or 'not computed'}",
        )
