"""Write a checkpoint that is there whole or not at all, then let go of the oldest.

The order is the promise: every file is forced to the disk in a hidden folder, the manifest last, then
the folder; only then does one rename give it its name. Whatever fails before that leaves the
earlier checkpoints as they were; what is removed is removed after the new one is safe.
"""

import errno
import operator
import os
import shutil
import warnings
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from harness.checkpoint import manifest
from harness.checkpoint.loading import looks_complete
from harness.errors import CheckpointError, HarnessError, NumericsError, ResourceError
from harness.files import tensor_file
from harness.files.checkpoint_names import (
    GROUP_NAME,
    MANIFEST,
    SUFFIX,
    leftovers,
    listed,
    replaced,
    step_name,
    step_of,
)
from harness.files.disk import sync_folder, write_file
from harness.files.nonfinite import first_nonfinite

SPARE_BYTES = 1 << 20  # folders, rounding to blocks, and a log line or two

_DISK_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_WRONG_FOLDER = {errno.EACCES, errno.EPERM, errno.ENOTDIR, errno.EEXIST, errno.ENAMETOOLONG}


def save(
    folder: Path,
    step: int,
    tensors: Mapping[str, Mapping[str, np.ndarray]],
    state: dict[str, Any],
    keep: int | None,
) -> Path:
    """Write checkpoint `folder/step-00000400`, durably, and return its path.

    tensors: group -> name -> array; each group becomes one file. Every float must be finite.
    state: what else the trainer needs to continue; it must survive JSON.
    keep: how many checkpoints stay, this one included; None keeps all.

    A checkpoint of the same step is replaced. Those of later steps are left alone: see
    set_aside_after.
    """
    assert keep is None or keep >= 1, "the last checkpoint is never deleted"
    assert all(GROUP_NAME.fullmatch(group) for group in tensors), f"group names: {list(tensors)}"
    step = operator.index(step)
    state_text = manifest.encode_state(state)
    for group, arrays in tensors.items():
        tensor_file.check_dtypes(group, arrays)
        _refuse_nonfinite(folder, step, group, arrays)
    try:
        _make_folder(folder)
        _recover(folder)
        needed = sum(map(tensor_file.encoded_bytes, tensors.values())) + len(state_text)
        _check_free_space(folder, step, needed)
        path = _write(folder, step, tensors, state)
    except OSError as error:
        raise _not_saved(folder, step, error) from error
    _tidy(folder, step, keep)
    return path


def set_aside_after(folder: Path, step: int) -> list[Path]:
    """Rename the checkpoints of later steps: training goes on from an earlier one, by choice.

    Otherwise the next `newest` would take up the future that was given up. Returns their new paths.
    """
    renamed = []
    for path in listed(folder):
        if (step_of(path) or 0) > step:
            target = path.with_name(f"superseded-{path.name}-{os.urandom(2).hex()}")
            os.rename(path, target)
            renamed.append(target)
    if renamed:
        sync_folder(folder)
    return renamed


def _write(
    folder: Path,
    step: int,
    tensors: Mapping[str, Mapping[str, np.ndarray]],
    state: dict[str, Any],
) -> Path:
    final = folder / step_name(step)
    stage = folder / f".{final.name}.partial"
    try:
        os.mkdir(stage)
        files = {
            f"{group}{SUFFIX}": write_file(stage / f"{group}{SUFFIX}", tensor_file.encode(arrays))
            for group, arrays in tensors.items()
        }
        sealed = manifest.encode(manifest.Manifest(step, files, state))
        write_file(stage / MANIFEST, [sealed])
        sync_folder(stage)
        _give_name(stage, final)
    except BaseException:
        shutil.rmtree(stage, ignore_errors=True)
        raise
    sync_folder(folder)
    return final


def _give_name(stage: Path, final: Path) -> None:
    if not final.exists():
        os.rename(stage, final)
        return
    aside = final.with_name(f".{final.name}.replaced")  # newest() knows this name
    os.rename(final, aside)
    try:
        os.rename(stage, final)
    except BaseException:
        os.rename(aside, final)
        raise


def _make_folder(folder: Path) -> None:
    if not folder.is_dir():
        os.makedirs(folder, exist_ok=True)
        sync_folder(folder.parent)


def _recover(folder: Path) -> None:
    """Undo what a crash left: finish replacements, remove stages."""
    for aside, name in replaced(folder).items():
        if looks_complete(name):
            _remove(aside)
        else:
            if name.exists():
                _remove(name)
            os.rename(aside, name)
    for path in leftovers(folder):
        shutil.rmtree(path)


def _tidy(folder: Path, step: int, keep: int | None) -> None:
    """Remove what the new checkpoint made superfluous; a failure to do so must not end the run."""
    try:
        for aside in replaced(folder):
            _remove(aside)
        if keep is None:
            return
        earlier = [path for path in listed(folder) if (step_of(path) or 0) < step]
        kept = [path for path in earlier if looks_complete(path)][: keep - 1]
        for path in earlier:
            if path not in kept:
                _remove(path)
    except OSError as error:
        warnings.warn(f"old checkpoints were not removed: {error}", RuntimeWarning, stacklevel=3)


def _remove(path: Path) -> None:
    """Unlist first: a removal that is cut short must not look like a damaged checkpoint."""
    name = path.name.removeprefix(".").removesuffix(".replaced")
    hidden = path.with_name(f".{name}.{os.urandom(2).hex()}.deleted")
    os.rename(path, hidden)
    shutil.rmtree(hidden)


def _check_free_space(folder: Path, step: int, needed_bytes: int) -> None:
    free_bytes = shutil.disk_usage(folder).free
    if free_bytes >= needed_bytes + SPARE_BYTES:
        return
    raise ResourceError(
        f"disk has no room for the checkpoint of step {step}",
        slug="checkpoint-disk-full",
        where=folder,
        expected=f"{needed_bytes + SPARE_BYTES:,} bytes free",
        found=f"{free_bytes:,}",
        effect=_effect(folder),
        do=f"free {needed_bytes + SPARE_BYTES - free_bytes:,} bytes, or keep fewer checkpoints",
    )


def _not_saved(folder: Path, step: int, error: OSError) -> HarnessError:
    facts = {
        "where": error.filename or folder,
        "found": f"{errno.errorcode.get(error.errno or 0, 'OSError')}: {error.strerror or error}",
        "effect": _effect(folder),
    }
    if error.errno in _DISK_FULL:
        return ResourceError(
            f"disk became full during the checkpoint of step {step}",
            slug="checkpoint-disk-full",
            **facts,
            do="free space (or raise the quota), or keep fewer checkpoints",
        )
    if error.errno in _WRONG_FOLDER:
        return CheckpointError(
            f"checkpoint of step {step} can't be written here",
            slug="checkpoint-folder-unusable",
            **facts,
            do="choose a folder that you can write to",
        )
    return ResourceError(
        f"disk failed during the checkpoint of step {step}",
        slug="checkpoint-disk-failed",
        **facts,
        do="look at the disk (dmesg, mount); then start again with the newest checkpoint",
    )


def _effect(folder: Path) -> str:
    newest = None
    with suppress(OSError):
        newest = next((path.name for path in listed(folder) if looks_complete(path)), None)
    return f"nothing earlier was touched; the newest checkpoint is {newest or 'none'}"


def _refuse_nonfinite(
    folder: Path, step: int, group: str, arrays: Mapping[str, np.ndarray]
) -> None:
    for name, array in arrays.items():
        if (index := first_nonfinite(array)) is not None:
            raise NumericsError(
                f"a checkpoint must be finite: {group}/{name}",
                slug="checkpoint-not-finite",
                where=f"step {step}, {group}/{name}{list(index)}",
                found=str(array[index]),
                effect=_effect(folder),
                do="start again with the newest checkpoint, with a lower learning rate",
            )
