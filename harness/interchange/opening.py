"""Any path that holds a GPT-2 -> a ModelFile, by what lies there and not by its name.

    a file                     llm.c's model, by its magic number
    a folder with model.json   the harness's own
    ... with config.json       Hugging Face
    ... with checkpoints/      a run: its newest complete checkpoint
    ... with manifest.json     one checkpoint
    ... with DONE_*            what llm.c's CUDA trainer left: its newest whole set

A run that trained an adapter gives the sum of both.
"""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from harness.errors import CheckpointError
from harness.files.checkpoint_names import MANIFEST
from harness.interchange.model_folder import DESCRIPTION
from harness.models.model_file import ModelFile


@contextmanager
def open_model(path: Path | str) -> Iterator[ModelFile]:
    """The stored model at path, open. Raises CheckpointError where there is none."""
    source = _reader(Path(os.path.expanduser(path)))
    try:
        yield source
    finally:
        source.close()


def _reader(path: Path) -> ModelFile:
    # os.path says no where a Path raises: a name may be too long, or a folder closed to us.
    if os.path.isfile(path):
        return _llmc(path)
    for name, reader in _FOLDERS.items():
        if os.path.exists(path / name):
            return reader(path)
    if os.path.isdir(path) and any(path.glob("DONE_*")):
        from harness.interchange.llmc.training import LlmcSetModel

        return LlmcSetModel(path)
    raise CheckpointError(
        f"there is no model at {path}",
        slug="model-missing",
        where=path.absolute(),
        expected="llm.c's model.bin, or a folder with " + ", ".join(_FOLDERS),
        found=_found(path),
        do=_remedy(path),
    )


def _llmc(path: Path) -> ModelFile:
    from harness.interchange.llmc.model import LlmcModel
    from harness.interchange.llmc.tokenizer import tokenizer_beside

    model = LlmcModel(path)
    try:
        model.tokenizer = tokenizer_beside(path, model.model.vocab_size)
    except BaseException:
        model.close()
        raise
    return model


def _model_folder(path: Path) -> ModelFile:
    from harness.interchange.model_folder import ModelFolder

    return ModelFolder(path)


def _huggingface(path: Path) -> ModelFile:
    from harness.interchange.huggingface.folder import HuggingFaceModel

    return HuggingFaceModel(path)


def _run(path: Path) -> ModelFile:
    from harness.interchange.checkpoint_model import newest_of_run

    return newest_of_run(path)


def _checkpoint(path: Path) -> ModelFile:
    from harness.interchange.checkpoint_model import open_checkpoint

    return open_checkpoint(path)


_FOLDERS: dict[str, Callable[[Path], ModelFile]] = {
    DESCRIPTION: _model_folder,
    "config.json": _huggingface,
    MANIFEST: _checkpoint,
    "checkpoints": _run,
}


def _remedy(path: Path) -> str:
    if os.path.exists(path / "adapter_config.json"):
        return f"this is an adapter: harness adapter merge MODEL {path} FOLDER"
    files = sorted(path.glob("*.bin")) if os.path.isdir(path) else []
    if files:
        return "give the file: " + " or ".join(str(file) for file in files[:3])
    return (
        "harness import hf NAME fetches a model of Hugging Face; python -m harness.train makes one"
    )


def _found(path: Path) -> str:
    try:
        names = sorted(os.listdir(path))
    except FileNotFoundError:
        return "nothing"
    except NotADirectoryError:
        return "neither a file nor a folder"
    except (OSError, ValueError) as error:  # ValueError: a zero byte in the name
        return str(error)
    return ", ".join(names[:8]) + (" ..." if len(names) > 8 else "") or "an empty folder"
