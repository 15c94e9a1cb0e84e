"""The model in a training run's checkpoint, as a ModelFile: what the run has trained so far.

Where it trained an adapter, that is added to the frozen weights: the model is the sum.
"""

from pathlib import Path
from typing import Any

import numpy as np

from harness import checkpoint, tokenizers
from harness.checkpoint import Checkpoint
from harness.contract import Shape
from harness.errors import CheckpointError, HarnessError
from harness.files.checkpoint_names import SUFFIX, damaged
from harness.interchange.merged import merged
from harness.interchange.safetensors_file import SafetensorsFile
from harness.interchange.stored_tensors import check_tensors, read_finite
from harness.models.gpt2 import GPT2, SIZES, STANDARD_OPS
from harness.models.lora import Lora
from harness.models.model_file import ModelFile

GROUP = "model"


class CheckpointModel:
    """The model's own tensors in a checkpoint that was verified when it was opened.

    lora: the adapter that was trained beside them, None where they were trained themselves.
    """

    def __init__(self, found: Checkpoint) -> None:
        self.checkpoint = found
        self.path = found.path
        self.model = _model(found)
        self.tokenizer = _tokenizer(found)
        self.description = f"checkpoint of step {found.step:,}"
        self._file = SafetensorsFile(found.path / f"{GROUP}{SUFFIX}")
        try:
            self.lora = _lora(found)
            self.dtype = check_tensors(self._file, self.model, self._pairs())
        except BaseException:
            self.close()
            raise

    def read_into(self, name: str, out: np.ndarray) -> None:
        read_finite(self._file, self.model, name, out, self.path)

    def _pairs(self) -> dict[str, Shape]:
        if self.lora is None or self.model.layers > len(self._file.entries):
            return {}
        return self.lora.shapes(self.model)

    def adapter_tensor(self, name: str) -> np.ndarray:
        """One of the adapter's tensors, float32."""
        values = np.empty(self._file.entries[name].shape, np.float32)
        self._file.read_into(name, values)
        return values

    def close(self) -> None:
        self._file.close()


def open_checkpoint(path: Path) -> ModelFile:
    """The model that a checkpoint holds: with its adapter, where it has one."""
    return _with_adapter(CheckpointModel(checkpoint.load(path)))


def newest_of_run(run: Path) -> ModelFile:
    """The model of a run's newest complete checkpoint."""
    return _with_adapter(newest_checkpoint(run))


def newest_checkpoint(run: Path) -> CheckpointModel:
    """A run's newest complete checkpoint, its adapter apart."""
    folder = run / "checkpoints"
    found, _ = checkpoint.newest(folder) if folder.is_dir() else (None, [])
    if found is None:
        raise CheckpointError(
            f"the run has no complete checkpoint: {run}",
            slug="run-without-checkpoint",
            where=folder.absolute(),
            do="the folder of a run that has trained to a checkpoint",
        )
    return CheckpointModel(found)


def _with_adapter(stored: CheckpointModel) -> ModelFile:
    if stored.lora is None:
        return stored
    return merged(stored, stored.lora, stored.adapter_tensor)


def _lora(found: Checkpoint) -> Lora | None:
    config = found.state.get("config")
    adapter = config.get("adapter") if isinstance(config, dict) else None
    if not isinstance(adapter, dict) or adapter.get("name") in (None, "none"):
        return None
    try:
        rank, alpha, targets = adapter["rank"], float(adapter["alpha"]), adapter["targets"]
        if type(rank) is not int or not all(type(target) is str for target in targets):
            raise TypeError
        return Lora(rank, alpha, tuple(targets))
    except (KeyError, TypeError, ValueError, OverflowError, HarnessError):
        raise damaged(
            found.path / "manifest.json", expected="an adapter", found=str(adapter)[:160]
        ) from None


def _model(found: Checkpoint) -> GPT2:
    """The shape, from the settings that a resumed run must have in common with this one."""
    settings = found.state.get("fingerprint")
    settings = settings if isinstance(settings, dict) else {}
    shape: dict[str, Any] = {name: settings.get(f"model.{name}") for name in SIZES}
    try:
        if not all(type(size) is int for size in shape.values()):
            raise ValueError("no sizes of a model")
        ops = {place: settings.get(f"model.{place}", op) for place, op in STANDARD_OPS.items()}
        shape |= {place: str(op) for place, op in ops.items()}
        return GPT2(**shape)
    except (ValueError, HarnessError):
        raise damaged(
            found.path / "manifest.json", expected="the shape of a GPT-2", found=str(shape)[:160]
        ) from None


def _tokenizer(found: Checkpoint) -> tokenizers.Tokenizer | None:
    record = found.state.get("tokenizer")
    return None if record is None else tokenizers.from_dict(record)
