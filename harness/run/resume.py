"""Find the checkpoint that a run goes on from; refuse one that it could not continue bit for bit."""

import dataclasses
import os
from pathlib import Path
from typing import Any

from harness import checkpoint
from harness.config.config import RunConfig, adapter_of, sequence_length
from harness.errors import CheckpointError
from harness.models.gpt2 import GPT2
from harness.run import folder as run_folder


def fingerprint(config: RunConfig, model: GPT2, data_sha256: str) -> dict[str, Any]:
    """The settings that a run must have in common with the one it continues.

    The learning rate, its schedule and the number of steps may change: to change them is why people
    resume. Backends may change too, and the record says which ones ran.
    """
    settings = {f"model.{name}": value for name, value in dataclasses.asdict(model).items()}
    for name, value in dataclasses.asdict(config.optimizer).items():
        if name != "lr":
            settings[f"optimizer.{name}"] = value
    if not config.data.shuffle:
        settings["data.shuffle"] = False
    adapter = adapter_of(config)
    if adapter is not None:
        settings["adapter.name"] = config.adapter.name
        settings["adapter.rank"], settings["adapter.alpha"] = adapter.rank, adapter.alpha
        settings["adapter.targets"] = list(adapter.targets)  # by their own names, in their order
    return {
        "data sha256": data_sha256,
        **settings,
        "seed": config.seed,
        "sequences per step": config.batch_size * config.gradient_accumulation,
        "sequence_length": sequence_length(config),
    }


def find(config: RunConfig) -> tuple[checkpoint.Checkpoint | None, list[str]]:
    """The checkpoint that `resume` asks for, if there is one, and a line for each that was passed over.

    Raises CheckpointError where a folder was named and holds none.
    """
    if config.resume == "never":
        return None, []
    if config.resume == "auto":
        newest = run_folder.find_newest(Path(config.runs_dir), config.name)
        if newest is None:
            return None, []
        folder = newest
    else:
        folder = Path(os.path.expanduser(config.resume))
        if not folder.is_dir():
            raise CheckpointError(
                f"there is no run to resume from: {config.resume}",
                slug="run-missing",
                do="resume=auto, or the folder of a run",
            )
    found, ignored = checkpoint.newest(folder / "checkpoints")
    if found is None and config.resume != "auto":
        raise CheckpointError(
            f"the run has no checkpoint: {config.resume}",
            slug="run-without-checkpoint",
            where=shown(folder / "checkpoints"),
            do="resume=never starts anew",
        )
    return found, [f"ignored   {shown(path)}: {reason}" for path, reason in ignored]


def check_fits(found: checkpoint.Checkpoint, wanted: dict[str, Any]) -> None:
    """Raise CheckpointError, naming the first setting that differs."""
    written = found.state.get("fingerprint", {})
    for name in {**wanted, **written}:
        value = wanted.get(name)
        if written.get(name) != value:
            raise CheckpointError(
                f"the run cannot go on from this checkpoint: {name} differs",
                slug="resume-misfit",
                where=shown(found.path),
                expected=written.get(name),
                found=value,
                do="the configuration that it was written by (config.yaml beside it), "
                "or resume=never",
            )


def shown(path: Path) -> str:
    """A path as the user would type it."""
    try:
        return str(path.relative_to(Path.cwd()))
    except ValueError:
        return str(path)
