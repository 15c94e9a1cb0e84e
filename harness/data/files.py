"""Read files that may be missing, hostile or changing; write them whole or not at all.

Reading is by ordinary reads against the size that fstat gave, never by memory map: a mapped file
that shrinks ends the process with SIGBUS, a read one is an error with its counts.
"""

import glob
import io
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from harness.errors import DataError, ResourceError
from harness.files import disk

GLOB_CHARACTERS = frozenset("*?[")


def find_files(pattern: str, suffix: str = "") -> list[Path]:
    """The files that pattern means, sorted; never an empty list.

    pattern: a file; a folder (every regular file under it whose name ends with suffix, hidden ones
        left out); or a glob, in which ** crosses folders. A name that exists is never a glob.
    """
    pattern = os.path.expanduser(pattern)
    if os.path.isdir(pattern):
        found = sorted(path for path in _walk(pattern) if path.name.endswith(suffix))
        if not found:
            raise DataError(
                f"folder has no {suffix or 'data'} files: {pattern}",
                slug="data-folder-empty",
                where=os.path.abspath(pattern),
                do="data.path=FILE, a folder with files in it, or a glob in quotes",
            )
        return found
    if os.path.lexists(pattern) or not GLOB_CHARACTERS & set(pattern):
        return [Path(pattern)]  # whether it can be read shows when it is opened
    found = sorted(p for p in map(Path, glob.glob(pattern, recursive=True)) if p.is_file())
    if not found:
        raise DataError(
            f"no file matches the pattern: {pattern}",
            slug="data-glob-empty",
            where=f"from {os.getcwd()}",
            do="put the pattern in quotes, and try it with ls",
        )
    return found


@contextmanager
def open_file(path: Path) -> Iterator[tuple[io.FileIO, int]]:
    """path opened for reading, with its size in bytes; whatever fails inside is a DataError."""
    try:
        file, size = disk.open_regular(path)
        with file:
            yield file, size
    except FileNotFoundError:
        raise DataError(
            f"no such file: {path}",
            slug="data-file-missing",
            where=os.path.abspath(path),
            do="correct data.path",
        ) from None
    except disk.NotRegularError:
        if path.is_dir():
            raise DataError(f"a folder, not a file: {path}", slug="data-file-is-folder") from None
        raise DataError(
            f"not a regular file: {path}", slug="data-file-not-regular", where=path
        ) from None
    except MemoryError as error:
        raise ResourceError(
            f"file does not fit into memory: {path}", slug="data-file-too-large", found=error
        ) from error
    except (OSError, ValueError) as error:  # ValueError: a zero byte in the name
        raise DataError(
            f"file can't be read: {str(path)!r}", slug="data-file-unreadable", found=error
        ) from error


def read_into(buffer: memoryview, file: io.FileIO, path: Path) -> None:
    """Fill buffer from file, or say how far it came: the file shrank after its size was taken."""
    done = 0
    while done < len(buffer):
        count = file.readinto(buffer[done:])
        if not count:
            raise DataError(
                f"file became shorter while it was read: {path}",
                slug="data-file-shrank",
                where=path,
                expected=f"{len(buffer):,} more bytes",
                found=f"{done:,}",
                do="wait until nothing writes to it",
            )
        done += count


def read_bytes(path: Path, at_most: int | None = None) -> bytes:
    """The bytes of a file; only the first at_most if that is given."""
    with open_file(path) as (file, size):
        wanted = size if at_most is None else min(size, at_most)
        buffer = np.empty(wanted, dtype=np.uint8).data
        read_into(buffer, file, path)
        if wanted == size and file.read(1):
            raise DataError(
                f"file became longer while it was read: {path}",
                slug="data-file-grew",
                where=path,
                expected=f"{size:,} bytes",
                do="wait until nothing writes to it",
            )
        return buffer.tobytes()


def write_atomically(path: Path, chunks: Iterable[bytes | memoryview]) -> None:
    """Write chunks to path: after a failure or a crash there is the old file or the new, whole."""
    try:
        disk.write_atomically(path, chunks)
    except OSError as error:
        raise ResourceError(
            f"file can't be written: {path}", slug="data-file-not-written", found=error
        ) from error


def _walk(folder: str) -> Iterator[Path]:
    for parent, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        for name in names:
            path = Path(parent, name)
            if not name.startswith(".") and path.is_file():
                yield path
