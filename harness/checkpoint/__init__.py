"""Save a run so that a crash at any moment loses no more than the steps since the last save.

A checkpoint is a folder, `<run>/checkpoints/step-00000400/`, with one safetensors file for each
group of tensors (model, optimizer) and a `manifest.json` that names them with their sizes and sha256.
It gets its name only when all of it is on the disk, so a folder with such a name is complete, or was
damaged later and is ignored with a reason. No file in it can run code.

`save` writes one and removes old ones, `newest` finds the one to resume from, `load` opens one by
path.
"""

from harness.checkpoint.loading import Checkpoint, Ignored, load, newest
from harness.checkpoint.saving import save, set_aside_after
from harness.files.checkpoint_names import listed, step_name

__all__ = [
    "Checkpoint",
    "Ignored",
    "listed",
    "load",
    "newest",
    "save",
    "set_aside_after",
    "step_name",
]
