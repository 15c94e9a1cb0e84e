"""The files with the tensors of a Hugging Face GPT-2, and which of them holds which tensor.

One file, or an index and the several that it names. When they are open, every tensor of the model is
there once, with its shape, in one of three number formats, and nothing else is there.
"""

from collections.abc import Iterable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np

from harness.errors import CheckpointError, shortened
from harness.files.json_file import read_json
from harness.files.tensor_file import dtype_of
from harness.interchange.huggingface import names
from harness.interchange.huggingface.config import invalid
from harness.interchange.safetensors_file import SafetensorsFile
from harness.models.gpt2 import GPT2

WEIGHTS = "model.safetensors"
INDEX = "model.safetensors.index.json"
PICKLED = ("pytorch_model.bin", "pytorch_model.bin.index.json")
DTYPES = ("float32", "bfloat16", "float16")
MAX_INDEX_BYTES = 1 << 20  # GPT-2 XL's would have 50 kB
MAX_FILES = 256  # each is kept open, and a process may have 1,024


class Weights:
    """The tensors of model in folder. files: those that are open; head: the one with lm_head, if any."""

    def __init__(self, folder: Path, model: GPT2) -> None:
        with ExitStack() as stack:
            self.files: list[SafetensorsFile] = []
            self._by_name: dict[str, SafetensorsFile] = {}
            shards = _shards(folder)
            for shard in sorted(set(shards.values())) if shards else [WEIGHTS]:
                file = stack.enter_context(SafetensorsFile(folder / shard))
                self.files.append(file)
                for name in file.entries:
                    if name in self._by_name:
                        other = self._by_name[name].path.name
                        raise _misfit(
                            file.path, "every tensor once", f"{shortened(name)}, as in {other}"
                        )
                    self._by_name[name] = file
            if shards:
                _check_index(folder / INDEX, shards, self._by_name)
            self._prefix = _prefix(self._by_name)
            self._check(folder, model)
            self._closing = stack.pop_all()

    @property
    def dtype(self) -> np.dtype:
        """The stored format; float32 where there are several."""
        found = {file.entries[name].dtype for name, file in self._by_name.items() if _counts(name)}
        return dtype_of(found.pop()) if len(found) == 1 else np.dtype(np.float32)

    @property
    def head(self) -> SafetensorsFile | None:
        return self._by_name.get(names.HEAD)

    def find(self, name: str) -> tuple[SafetensorsFile, str]:
        """Where a tensor lies, by our name: the file, and its name there."""
        theirs = self._prefix + names.theirs(name)
        return self._by_name[theirs], theirs

    def close(self) -> None:
        self._closing.close()

    def _check(self, folder: Path, model: GPT2) -> None:
        present = {name for name in self._by_name if _counts(name)}
        # Before the names of a million layers are made.
        if 12 * model.layers > len(present):
            expected = f"12 tensors for each of {model.layers:,} layers"
            raise _misfit(folder, expected, f"{len(present)} tensors in all")
        wanted = {
            self._prefix + names.theirs(name): shape
            for name, shape in names.stored_shapes(model).items()
        }
        if missing := [name for name in wanted if name not in present]:
            found = f"none of {len(missing)}" if len(missing) > 1 else "none"
            raise _misfit(folder, f"a tensor {_listed(missing)}", found)
        if self.head is not None:
            wanted[names.HEAD] = (model.vocab_size, model.channels)
        if unexpected := sorted(present - wanted.keys()):
            raise _misfit(folder, "the tensors of a GPT-2 and no other", _listed(unexpected))
        for name, shape in wanted.items():
            file = self._by_name[name]
            entry = file.entries[name]
            if entry.shape != shape:
                raise _misfit(file.path, f"{name} as {shape}", shortened(entry.shape))
            if entry.dtype not in DTYPES:
                raise _misfit(file.path, f"{name} as {', '.join(DTYPES)}", entry.dtype)


def _shards(folder: Path) -> dict[str, str] | None:
    """Tensor -> name of its file, checked to be a name and not a path; None where there is one file.

    A folder with both has one, as transformers reads it.
    """
    path = folder / INDEX
    if (folder / WEIGHTS).exists():
        return None
    if not path.exists():
        raise _without_weights(folder)
    index = read_json(path, MAX_INDEX_BYTES, invalid)
    shards: Any = index.get("weight_map") if isinstance(index, dict) else None
    if not isinstance(shards, dict) or not shards:
        raise invalid(path, "a weight_map of tensors to files", shortened(shards))
    for name in shards.values():
        if not isinstance(name, str) or not _is_plain(name):
            expected = "files beside it, as model-00001-of-00002.safetensors"
            raise invalid(path, expected, shortened(repr(name)))
    if (count := len(set(shards.values()))) > MAX_FILES:
        raise invalid(path, f"at most {MAX_FILES} files", f"{count:,}")
    return shards


def _is_plain(name: str) -> bool:
    # A backslash is a separator elsewhere, and a zero byte ends a name for the system.
    return (
        name.endswith(".safetensors")
        and not name.startswith(".")
        and not any(character in "/\\" or not character.isprintable() for character in name)
        and len(name.encode(errors="replace")) <= 255
    )


def _check_index(path: Path, shards: dict[str, str], found: dict[str, SafetensorsFile]) -> None:
    for name, shard in shards.items():
        if name not in found or found[name].path.name != shard:
            there = f"in {found[name].path.name}" if name in found else "in none of the files"
            raise invalid(path, f"{shortened(name)} in {shard}", there)
    if extra := [name for name in found if name not in shards]:
        raise invalid(path, "every tensor of the files", f"no {_listed(extra)}")


def _prefix(present: Iterable[str]) -> str:
    return names.PREFIX if any(name.startswith(names.PREFIX) for name in present) else ""


def _counts(name: str) -> bool:
    return not names.is_mask(name)


def _without_weights(folder: Path) -> CheckpointError:
    for name in PICKLED:
        if (folder / name).exists():
            return CheckpointError(
                f"this GPT-2 has its weights in a pickle, which can run code: {folder / name}",
                slug="huggingface-pickled",
                where=folder,
                expected=f"{WEIGHTS}, or {INDEX} and the files that it names",
                found=name,
                effect="not opened",
                do="where you trust it, convert it with transformers:\n"
                f"GPT2LMHeadModel.from_pretrained({str(folder)!r}).save_pretrained(FOLDER,"
                " safe_serialization=True)",
            )
    return CheckpointError(
        f"this folder of a GPT-2 has no weights: {folder}",
        slug="huggingface-weights-missing",
        where=folder,
        expected=f"{WEIGHTS}, or {INDEX} and the files that it names",
        do="copy the rest of the folder, or harness import hf NAME, which fetches all of it",
    )


def _misfit(where: Path, expected: str, found: str) -> CheckpointError:
    return CheckpointError(
        "the tensors are not those of the GPT-2 in config.json",
        slug="huggingface-misfit",
        where=where,
        expected=expected,
        found=found,
        effect="not loaded",
    )


def _listed(found: list[str]) -> str:
    more = f" and {len(found) - 3} more" if len(found) > 3 else ""
    return ", ".join(shortened(name) for name in found[:3]) + more
