"""The names in a folder of checkpoints, and the one way to say that a checkpoint is damaged.

    step-00000400                  complete when it got this name
    .step-00000400.partial         being written
    .step-00000400.replaced        complete, while another one of the same step takes its name
    .step-00000400.xxxx.deleted    being removed
    superseded-step-00000400-xxxx  of a future that was given up; no longer listed

What a crash leaves under the hidden names is put in order by the next save.
"""

import re
from pathlib import Path

from harness.errors import CheckpointError

MANIFEST = "manifest.json"
SUFFIX = ".safetensors"
GROUP_NAME = re.compile(r"[a-z][a-z0-9_]{0,63}")

_STEP_NAME = re.compile(r"step-(\d{8,18})", re.ASCII)
_REPLACED_NAME = re.compile(r"\.(step-\d{8,18})\.replaced", re.ASCII)


def step_name(step: int) -> str:
    return f"step-{step:08d}"


def step_of(path: Path) -> int | None:
    """The step that the folder's name says; None for any other name."""
    match = _STEP_NAME.fullmatch(path.name)
    return int(match[1]) if match else None


def listed(folder: Path) -> list[Path]:
    """The checkpoints in folder by their names alone, newest step first; none if there is no folder."""
    steps = {path: step for path in _inside(folder) if (step := step_of(path)) is not None}
    return sorted(steps, key=lambda path: (steps[path], path.name), reverse=True)


def replaced(folder: Path) -> dict[Path, Path]:
    """Checkpoints that were moved out of the way of another one, each with the name it had."""
    found = {}
    for path in sorted(_inside(folder)):
        if match := _REPLACED_NAME.fullmatch(path.name):
            found[path] = folder / match[1]
    return found


def leftovers(folder: Path) -> list[Path]:
    """What a save or a removal left behind when it was cut short."""
    return [
        path
        for path in _inside(folder)
        if path.name.startswith(".step-") and path.name.endswith((".partial", ".deleted"))
    ]


def damaged(file: Path, *, expected: str | None, found: str) -> CheckpointError:
    """The error of a file in a checkpoint that is not what it must be."""
    return CheckpointError(
        f"checkpoint is damaged: {file.name}",
        slug="checkpoint-damaged",
        where=file,
        expected=expected,
        found=found,
        effect="not loaded",
        do=_remedy(file.parent),
    )


def _remedy(checkpoint: Path) -> str:
    step = step_of(checkpoint)
    if step is None:
        return "copy it again from where it came"
    try:
        earlier = [path for path in listed(checkpoint.parent) if (step_of(path) or 0) < step]
    except OSError:
        earlier = []
    if not earlier:
        return "delete the folder; no earlier checkpoint is left"
    return f"delete the folder; the one before it is {earlier[0].name}"


def _inside(folder: Path) -> list[Path]:
    try:
        return list(folder.iterdir())
    except FileNotFoundError:
        return []
