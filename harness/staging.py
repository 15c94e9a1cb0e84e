"""Write a folder that appears whole under its name, or not at all.

    with whole_folder(path) as stage:              # a hidden folder beside path
        write_file(stage / "model.json", [text])
                                                   # forced to the disk, and renamed

Whether what stands at path may be replaced is the caller's to say, before. A checkpoint, which must
be found again after a crash at any moment, has names of its own: harness/checkpoint/saving.py.
"""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from harness.checkpoint.disk import sync_folder


@contextmanager
def whole_folder(path: Path) -> Iterator[Path]:
    """A hidden folder to write to, which becomes path at the end of the block.

    After a failure there is what was there before. Raises OSError as the system gives it.
    """
    with stage_beside(path) as stage:
        yield stage
        put_in_place(stage, path)


@contextmanager
def stage_beside(path: Path) -> Iterator[Path]:
    """A new hidden folder beside path, gone again afterwards unless it was put in its place."""
    path.parent.mkdir(parents=True, exist_ok=True)
    stage = path.with_name(f".{path.name}.{os.getpid()}-{os.urandom(4).hex()}.partial")
    try:
        os.mkdir(stage)
        yield stage
    finally:
        shutil.rmtree(stage, ignore_errors=True)


def put_in_place(stage: Path, path: Path) -> None:
    """Rename stage to path; what path held is deleted once the new one is there for good.

    A machine that stops between the two renames leaves the old folder under the hidden name `.old`.
    """
    sync_folder(stage)
    aside = stage.with_suffix(".old")
    if path.exists() and any(path.iterdir()):
        os.rename(path, aside)
    try:
        os.rename(stage, path)
        sync_folder(path.parent)
    except BaseException:
        if not stage.exists():
            os.rename(path, stage)
        if aside.exists():
            os.rename(aside, path)
        raise
    shutil.rmtree(aside, ignore_errors=True)
