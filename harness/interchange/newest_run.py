"""`auto` in the place of a stored model: the newest run that has a checkpoint."""

import os
from pathlib import Path

from harness.errors import CheckpointError

AUTO = "auto"


def chosen_model(path: str, runs_dir: str = "runs") -> Path:
    """Where a model lies. path: `auto`, or the path itself."""
    if path != AUTO:
        return Path(os.path.expanduser(path))
    folder = Path(runs_dir)
    runs = [run.parent for run in folder.glob("*/run.json") if _has_checkpoint(run.parent)]
    if not runs:
        raise CheckpointError(
            f"there is no run with a checkpoint to take a model from: {folder}",
            slug="no-run-to-take-a-model-from",
            do="the path of a run, an llm.c .bin, a Hugging Face folder; "
            "or python -m harness.train makes a model",
        )
    return max(runs, key=lambda run: ((run / "run.json").stat().st_mtime_ns, run.name))


def _has_checkpoint(run: Path) -> bool:
    return any((run / "checkpoints").glob("step-*/manifest.json"))
