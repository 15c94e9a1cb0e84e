"""Read a safetensors file tensor by tensor, and write one, with no more than a block in memory.

    with SafetensorsFile(path) as file:               # the header is checked against the size
        file.read_into("wte.weight", wte_VC)
        file.read_into("c_attn.weight", qkvw_OI, transposed=True)

The format, and the checks of its header, are those of harness/files/tensor_file.py, which reads
whole files; this one keeps the file open and leaves the tensors on the disk until they are asked for.
"""

import io
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np

from harness.files.checkpoint_names import damaged
from harness.files.disk import FileRecord, open_file, read_exactly, write_file
from harness.files.json_file import parse
from harness.files.tensor_file import LENGTH, METADATA, Entry, dtype_of, header_of, read_header
from harness.interchange.closable import Closable

BLOCK_BYTES = 2 << 20  # the largest temporary; turned around, it still fits a processor's cache


class SafetensorsFile(Closable):
    """A safetensors file, open. entries: what its header promises, checked, by name."""

    def __init__(self, path: Path) -> None:
        self.path = path
        with ExitStack() as stack:
            self._file: io.FileIO
            self._file, size = stack.enter_context(open_file(path))
            header, entries = read_header(self._file, size, path)
            self._closing = stack.pop_all()
        self._header, self._payload = header, len(header)
        self.entries: dict[str, Entry] = {entry.name: entry for entry in entries}

    def read_into(self, name: str, out: np.ndarray, *, transposed: bool = False) -> None:
        """Fill out, C-ordered, with a tensor of its shape; of its shape reversed if transposed.

        The stored numbers are converted to out's dtype, block by block.
        """
        entry = self.entries[name]
        assert out.flags.c_contiguous, "filled in the order of the file"
        assert out.shape == (entry.shape[::-1] if transposed else entry.shape), f"{out.shape}"
        stored = dtype_of(entry.dtype)
        if out.dtype == stored and not transposed:
            self._fill(entry.begin, out.reshape(-1).view(np.uint8).data)
            return
        for start, block in self.blocks(name):
            if transposed:
                out[:, start : start + len(block)] = block.T
            else:
                out[start : start + len(block)] = block

    def metadata(self) -> dict[str, Any]:
        """What the writer noted beside the tensors: a stranger's words, of whatever kind."""
        noted = parse(self._header[LENGTH.size :]).get(METADATA)
        return noted if isinstance(noted, dict) else {}

    def blocks(self, name: str) -> Iterator[tuple[int, np.ndarray]]:
        """Row by row: where a block of rows begins, and the block, which is valid until the next."""
        entry = self.entries[name]
        stored, (rows, *row) = dtype_of(entry.dtype), entry.shape
        row_bytes = math.prod(row) * stored.itemsize
        height = max(1, min(rows, BLOCK_BYTES // max(1, row_bytes)))
        space = np.empty(height * row_bytes, np.uint8)
        for start in range(0, rows, height):
            count = min(height, rows - start)
            part = space[: count * row_bytes]
            self._fill(entry.begin + start * row_bytes, part.data)
            yield start, part.view(stored).reshape(count, *row)

    def close(self) -> None:
        self._closing.close()

    def _fill(self, offset: int, buffer: memoryview) -> None:
        try:
            self._file.seek(self._payload + offset)
            read_exactly(self._file, buffer, self.path)
        except OSError as error:
            raise damaged(
                self.path, expected="a file that can be read", found=str(error)
            ) from error


def write_safetensors(
    path: Path,
    tensors: Sequence[tuple[str, str, Sequence[int]]],
    pieces: Iterable[bytes | memoryview],
    metadata: Mapping[str, str] | None = None,
) -> FileRecord:
    """Write a new file and force it to the disk.

    tensors: name, NumPy's name of the dtype, and shape, in the order of the payload.
    pieces: the bytes of the payload, however they are cut; no more than one is in memory.
    """
    header = header_of(tensors, metadata)
    record = write_file(path, _after(header, pieces))
    payload = sum(math.prod(shape) * dtype_of(dtype).itemsize for _, dtype, shape in tensors)
    assert record.bytes == len(header) + payload, f"{record.bytes} bytes are not what was promised"
    return record


def _after(header: bytes, pieces: Iterable[bytes | memoryview]) -> Iterator[bytes | memoryview]:
    yield header
    yield from pieces
