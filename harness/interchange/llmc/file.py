"""Read numbers from llm.c's files against the size that they had, and write such files whole.

Every kind begins with the header of header.py and has one possible size, which is checked before
anything is allocated: llm.c itself reads on into whatever follows, or stops short, and says nothing.
"""

import io
import os
from collections.abc import Collection, Iterable
from pathlib import Path

import numpy as np

from harness.errors import CheckpointError, NumericsError, ResourceError
from harness.files.disk import measure, open_regular, replacing, write_file
from harness.files.nonfinite import first_nonfinite
from harness.interchange.closable import Closable
from harness.interchange.llmc import header as llmc_header
from harness.interchange.llmc.header import HEADER_BYTES

# The largest temporary of a conversion; a system call of this size costs nothing.
BLOCK_BYTES = 4 << 20


class LlmcFile(Closable):
    """A file of llm.c's, open, with its header checked and its size known."""

    def __init__(
        self, path: Path, magic: int, versions: Collection[int], used: Collection[int]
    ) -> None:
        self.path = path
        self._file, self.size = _open(path)
        try:
            raw = self.read(0, min(self.size, HEADER_BYTES))
            self.header = llmc_header.decode(raw, path, magic, versions, used)
        except BaseException:
            self.close()
            raise

    def require_size(self, expected: int, contents: str) -> None:
        """Refuse a file of any other size. contents: what the header promises, for the error."""
        if self.size != expected:
            raise wrong_size(self.path, f"{expected:,} bytes: {contents}", self.size)

    def read(self, offset: int, count: int) -> bytes:
        """count bytes from offset; only for what is small, or bounded by the size of the file."""
        assert offset + count <= self.size, "the size is checked before anything is read"
        buffer = np.empty(count, np.uint8)
        self._fill(offset, buffer.data)
        return buffer.tobytes()

    def read_floats(self, offset: int, out: np.ndarray, dtype: np.dtype) -> None:
        """Fill out, float32, with numbers stored from byte offset on as float32 or bfloat16."""
        assert out.dtype == np.float32 and out.flags.c_contiguous, "float32 in C order"
        flat = out.reshape(-1)
        if dtype.itemsize == 4:
            self._fill(offset, flat.view(np.uint8).data)
            return
        bits = flat.view(np.uint32)
        block = np.empty(min(flat.size, BLOCK_BYTES // 2), "<u2")
        for start in range(0, flat.size, block.size):
            part = bits[start : start + block.size]
            stored = block[: part.size]
            self._fill(offset + 2 * start, stored.view(np.uint8).data)
            # A bfloat16 is the upper half of a float32.
            part[:] = stored
            part <<= 16

    def close(self) -> None:
        self._file.close()

    def _fill(self, offset: int, buffer: memoryview) -> None:
        done = 0
        try:
            self._file.seek(offset)
            while done < len(buffer):
                count = self._file.readinto(buffer[done : done + BLOCK_BYTES])
                if not count:
                    break
                done += count
        except OSError as error:
            raise _unreadable(self.path, str(error)) from error
        if done < len(buffer):
            raise CheckpointError(
                f"file became shorter while it was read: {self.path}",
                slug="llmc-file-changed",
                where=self.path,
                expected=f"{self.size:,} bytes, as when it was opened",
                found=f"{offset + done:,}",
                do="wait until nothing writes to it",
            )


def write_llmc_file(path: Path, pieces: Iterable[bytes | memoryview], size: int) -> None:
    """Write path, which will have that many bytes: after a failure there is the old file or the new.

    What was written is read back and compared before it gets its name.
    """
    try:
        with replacing(path) as temporary:
            written = write_file(temporary, pieces)
            assert written.bytes == size, f"{written.bytes} bytes written, not {size}"
            if measure(temporary, size) != written:
                raise _not_written(path, "what was read back is not what was written")
    except OSError as error:
        raise _not_written(path, str(error)) from error


def finite_bytes(values: np.ndarray, name: str, path: Path) -> memoryview:
    """The bytes of values as float32 in C order, all of them finite. name: what they are called."""
    with np.errstate(over="ignore"):  # what float32 cannot hold is refused below
        narrow = np.ascontiguousarray(values, "<f4")
    require_finite(narrow, name, path)
    return narrow.reshape(-1).view(np.uint8).data


def require_finite(values: np.ndarray, name: str, path: Path) -> None:
    """Refuse NaN and infinity. name: what the values are called."""
    index = first_nonfinite(values)
    if index is not None:
        raise NumericsError(
            f"not a finite number: {name}[{', '.join(map(str, index))}]",
            slug="llmc-not-finite",
            where=path,
            found=str(values[index]),
            effect="the file is neither read nor written further",
        )


def wrong_size(path: Path, expected: str, size: int) -> CheckpointError:
    """The error of a file whose size is not the one that its header promises."""
    return CheckpointError(
        f"llm.c file has the wrong size: {path}",
        slug="llmc-file-size",
        where=path,
        expected=expected,
        found=f"{size:,} bytes",
        do="copy or make the file again",
    )


def _open(path: Path) -> tuple[io.FileIO, int]:
    try:
        return open_regular(path)
    except FileNotFoundError:
        raise CheckpointError(
            f"no such file: {path}",
            slug="llmc-file-missing",
            where=os.path.abspath(path),
            do="correct the path",
        ) from None
    except (OSError, ValueError) as error:  # ValueError: a zero byte in the name
        raise _unreadable(path, str(error)) from error


def _unreadable(path: Path, found: str) -> CheckpointError:
    return CheckpointError(
        f"file can't be read: {str(path)!r}",
        slug="llmc-file-unreadable",
        expected="a regular file",
        found=found,
    )


def _not_written(path: Path, found: str) -> ResourceError:
    return ResourceError(
        f"file can't be written: {path}",
        slug="llmc-file-not-written",
        where=path,
        found=found,
        effect="the file that was there before, if any, is as it was",
    )
