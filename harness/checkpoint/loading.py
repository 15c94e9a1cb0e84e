"""Open a checkpoint that is complete and undamaged, and say of the others why they are not.

Everything is verified when a checkpoint is opened (names, sizes, sha256, headers), and the tensors
once more while they are read: what is returned is what was verified, even if the file changed.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from harness.checkpoint import manifest
from harness.errors import CheckpointError, NumericsError
from harness.files import tensor_file
from harness.files.checkpoint_names import MANIFEST, SUFFIX, damaged, listed, replaced, step_of
from harness.files.disk import FileRecord, measure
from harness.files.nonfinite import first_nonfinite


@dataclass(frozen=True)
class Checkpoint:
    """A complete checkpoint; its tensors stay on the disk until they are asked for."""

    path: Path
    step: int
    state: dict[str, Any]  # what the trainer gave to save
    files: dict[str, FileRecord]

    @property
    def groups(self) -> tuple[str, ...]:
        return tuple(name.removesuffix(SUFFIX) for name in self.files)

    def tensors(self, group: str) -> dict[str, np.ndarray]:
        """The arrays of a group by name, new and writable."""
        if group not in self.groups:
            raise CheckpointError(
                f"checkpoint has no group {group!r}: {self.path.name}",
                slug="checkpoint-group-missing",
                where=self.path,
                found=", ".join(self.groups) or "no group at all",
            )
        path = self.path / f"{group}{SUFFIX}"
        arrays, record = tensor_file.read(path)
        _compare(path, self.files[path.name], record)
        for name, array in arrays.items():
            if (index := first_nonfinite(array)) is not None:
                raise NumericsError(
                    f"checkpoint holds a value that is not finite: {group}/{name}",
                    slug="checkpoint-holds-nonfinite",
                    where=path,
                    found=f"{array[index]} at {index}",
                    effect="not loaded",
                    do="take an earlier checkpoint; this one was not written by this harness",
                )
        return arrays


class Ignored(NamedTuple):
    path: Path
    reason: str


def load(path: Path) -> Checkpoint:
    """The checkpoint in folder path, verified."""
    if not path.is_dir():
        raise _missing(path)
    found = manifest.read(path)
    for name, record in found.files.items():
        _compare(path / name, record, measure(path / name, record.bytes))
        tensor_file.check_layout(path / name)
    return Checkpoint(path, found.step, found.state, found.files)


def newest(folder: Path) -> tuple[Checkpoint | None, list[Ignored]]:
    """The complete checkpoint of the highest step in folder, and the higher ones that are not.

    folder: `<run>/checkpoints`; if it does not exist, there is no checkpoint.
    """
    ignored: list[Ignored] = []
    for path in _candidates(folder):
        try:
            return load(path), ignored
        except CheckpointError as error:
            ignored.append(Ignored(path, _reason(error)))
    return None, ignored


def looks_complete(path: Path) -> bool:
    """Whether the manifest and all sizes are right; for tidying, where reading all bytes is too slow."""
    try:
        found = manifest.read(path)
        return all((path / name).stat().st_size == f.bytes for name, f in found.files.items())
    except (CheckpointError, OSError):
        return False


def _candidates(folder: Path) -> list[Path]:
    try:
        ranked = [(step_of(path) or 0, 1, path) for path in listed(folder)]
        # A crash while a checkpoint of the same step took over: the one before it is still good.
        ranked += [(step_of(name) or 0, 0, path) for path, name in replaced(folder).items()]
    except OSError as error:
        raise CheckpointError(
            f"folder of checkpoints can't be read: {folder}",
            slug="checkpoint-folder-unreadable",
            found=error,
        ) from error
    return [path for _, _, path in sorted(ranked, reverse=True)]


def _compare(path: Path, expected: FileRecord, found: FileRecord) -> None:
    if found == expected:
        return
    if found.bytes != expected.bytes:
        found_text = f"{found.bytes:,} bytes"
    else:
        found_text = f"{found.bytes:,} bytes, sha256 {found.sha256}"
    raise damaged(
        path, expected=f"{expected.bytes:,} bytes, sha256 {expected.sha256}", found=found_text
    )


def _missing(path: Path) -> CheckpointError:
    try:
        others = [other.name for other in listed(path.parent)]
    except OSError:
        others = []
    return CheckpointError(
        f"no such checkpoint: {path}",
        slug="checkpoint-missing",
        where=path.absolute(),
        expected=f"a folder with a {MANIFEST}",
        found="not a folder" if path.exists() else "nothing",
        do=f"choose one of {', '.join(others[:8])}" if others else "correct the path",
    )


def _reason(error: CheckpointError) -> str:
    """One line: the headline, and what was expected and found."""
    parts = [
        f"{label} {error.facts[label]}" for label in ("expected", "found") if label in error.facts
    ]
    return error.headline + (f" ({', '.join(parts)})" if parts else "")
