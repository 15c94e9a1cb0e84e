"""Write files so that they are on the disk, and read them against the sizes they had.

Writing is by plain system calls (open, write, fsync, rename): each of them can fail, and the tests
make each of them fail. Reading is never by memory map: a mapped file that shrinks ends the process
with SIGBUS, a read one is an error with its counts.
"""

import hashlib
import io
import os
import stat
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from harness.files.checkpoint_names import damaged

CHUNK_BYTES = 4 << 20  # large enough that a system call costs nothing, small enough for any cache


@dataclass(frozen=True)
class FileRecord:
    """What the manifest says of a file."""

    bytes: int
    sha256: str


def write_file(path: Path, pieces: Iterable[bytes | memoryview]) -> FileRecord:
    """Write a new file and force it to the disk; its size and sha256 are those of what was given."""
    digest, size = hashlib.sha256(), 0
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
    try:
        for piece in pieces:
            view = memoryview(piece).cast("B")
            for start in range(0, len(view), CHUNK_BYTES):
                chunk = view[start : start + CHUNK_BYTES]
                digest.update(chunk)
                size += len(chunk)
                _write_all(descriptor, chunk)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    return FileRecord(size, digest.hexdigest())


def write_atomically(path: Path, pieces: Iterable[bytes | memoryview]) -> None:
    """Write path whole: after a failure or a crash there is the old file or the new."""
    with replacing(path) as temporary:
        write_file(temporary, pieces)


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A hidden name to write a file under, which takes the place of path at the end of the block."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}-{os.urandom(4).hex()}.tmp")
    try:
        yield temporary
        os.replace(temporary, path)
    except BaseException:
        with suppress(OSError):
            os.unlink(temporary)
        raise
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Force the names in folder to the disk; until then a rename may be forgotten."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def open_file(path: Path) -> Iterator[tuple[io.FileIO, int]]:
    """path opened for reading, with its size in bytes; whatever fails inside is a CheckpointError."""
    try:
        file, size = open_regular(path)
        with file:
            yield file, size
    except NotRegularError as error:
        raise damaged(path, expected="a regular file", found=str(error)) from None
    except FileNotFoundError:
        raise damaged(path, expected="a file of this name", found="none") from None
    except OSError as error:
        raise damaged(path, expected="a file that can be read", found=str(error)) from error


class NotRegularError(OSError):
    """There is something of this name, and it is no file."""


def open_regular(path: Path) -> tuple[io.FileIO, int]:
    """path opened for reading, with its size in bytes. Raises OSError, NotRegularError among them."""
    # Without O_NONBLOCK, opening a named pipe waits for ever.
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    status = os.fstat(descriptor)
    if stat.S_ISREG(status.st_mode):
        return io.FileIO(descriptor), status.st_size
    os.close(descriptor)
    raise NotRegularError("a folder" if stat.S_ISDIR(status.st_mode) else "a pipe or a device")


def read_exactly(file: io.FileIO, buffer: memoryview, path: Path) -> None:
    """Fill buffer from file, or say how far it came: the file shrank after its size was taken."""
    done = 0
    while done < len(buffer):
        count = file.readinto(buffer[done : done + CHUNK_BYTES])
        if not count:
            raise damaged(path, expected=f"{len(buffer):,} more bytes", found=f"{done:,}")
        done += count


def measure(path: Path, expected_bytes: int) -> FileRecord:
    """The size of a file and its sha256, which is left empty if the size is already wrong."""
    digest, done = hashlib.sha256(), 0
    with open_file(path) as (file, size):
        if size != expected_bytes:
            return FileRecord(size, "")
        buffer = memoryview(bytearray(CHUNK_BYTES))
        while count := file.readinto(buffer):
            digest.update(buffer[:count])
            done += count
            if done > size:
                break
    return FileRecord(done, digest.hexdigest())


def _write_all(descriptor: int, chunk: memoryview) -> None:
    while chunk:
        # A write may take a part only: a signal, or the last bytes of a disk that is nearly full.
        chunk = chunk[os.write(descriptor, chunk) :]
