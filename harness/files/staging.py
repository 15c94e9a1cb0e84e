"""Write a folder that appears whole under its name, or not at all.

    with whole_folder(path) as stage:              # a hidden folder beside path
        write_file(stage / "model.json", [text])
                                                   # forced to the disk, and renamed

Whether what stands at path may be replaced is the caller's to say, before. A machine that stops
between the two renames of a replacement leaves the old folder under the hidden name `.NAME.*.old`;
`recover`, with which every later writing begins, gives it its name again. A checkpoint, which must be
found by readers too after a crash at any moment, has names of its own: harness/checkpoint/saving.py.
"""

import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from harness.files.disk import sync_folder


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
    recover(path)
    stage = path.with_name(f".{path.name}.{os.getpid()}-{os.urandom(4).hex()}.partial")
    try:
        os.mkdir(stage)
        yield stage
    finally:
        shutil.rmtree(stage, ignore_errors=True)


def recover(path: Path) -> None:
    """Where path is missing, give it back the folder that an interrupted replacement put aside."""
    if os.path.lexists(path) or not os.path.isdir(path.parent):
        return
    ours = re.compile(rf"\.{re.escape(path.name)}\.\d+-[0-9a-f]{{8}}\.old")
    aside = [path.with_name(name) for name in os.listdir(path.parent) if ours.fullmatch(name)]
    if aside:
        os.rename(max(aside, key=lambda old: old.stat().st_ctime_ns), path)
        sync_folder(path.parent)


def put_in_place(stage: Path, path: Path) -> None:
    """Rename stage to path; what path held is deleted once the new one is there for good.

    A machine that stops between the two renames leaves the old folder aside, for `recover`.
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
