"""Token ids on disk, in llm.c's format (version 1): a header of 1,024 bytes, then uint16 ids.

    byte 0      int32   20240520
    byte 4      int32   1
    byte 8      int32   number of tokens n
    byte 12     zeros up to byte 1,024
    byte 1,024  n uint16; the file ends at exactly 1,024 + 2n bytes

Everything is little-endian.
"""

import io
import struct
from pathlib import Path

import numpy as np
import numpy.typing as npt

from harness.data.files import open_file, read_into, write_atomically
from harness.errors import DataError
from harness.tokenizers.token_ids import check_token_ids

MAGIC = 20240520
VERSION = 1
HEADER_BYTES = 1024
MAX_ID = 65535
MAX_COUNT = (2**31 - HEADER_BYTES) // 2 - 1  # llm.c seeks with an int: below 2 GiB


def write_token_file(path: Path | str, tokens: npt.ArrayLike) -> None:
    """Write a 1-D array of ids 0 .. 65,535, whole or not at all."""
    path = Path(path)
    ids = np.asarray(tokens)
    assert ids.ndim == 1, "a token file holds one row of tokens"
    if len(ids) > MAX_COUNT:
        raise DataError(
            f"too many tokens for one file: {path}",
            slug="token-file-too-large",
            expected=f"at most {MAX_COUNT:,} tokens (2 GiB)",
            found=f"{len(ids):,}",
            do="write several files; a glob reads them in sorted order",
        )
    ids = check_token_ids(ids, MAX_ID + 1, where=str(path))
    header = struct.pack("<3i", MAGIC, VERSION, len(ids)).ljust(HEADER_BYTES, b"\0")
    write_atomically(path, [header, np.ascontiguousarray(ids, dtype="<u2").tobytes()])


def read_token_file(path: Path | str) -> npt.NDArray[np.uint16]:
    """The tokens of one file. Which ids a vocabulary allows is checked by check_token_ids."""
    return read_token_files([Path(path)])


def read_token_files(paths: list[Path]) -> npt.NDArray[np.uint16]:
    """The tokens of several files, one after another in one array."""
    counts = [_count(path) for path in paths]
    tokens = np.empty(sum(counts), dtype="<u2")
    start = 0
    for path, count in zip(paths, counts, strict=True):
        with open_file(path) as (file, size):
            if _read_header(file, size, path) != count:
                raise DataError(
                    f"token file changed while it was read: {path}", slug="token-file-changed"
                )
            read_into(tokens[start : start + count].view(np.uint8).data, file, path)
        start += count
    return tokens


def _count(path: Path) -> int:
    with open_file(path) as (file, size):
        return _read_header(file, size, path)


def _read_header(file: io.FileIO, size: int, path: Path) -> int:
    """The number of tokens, after everything in the header agrees with the size of the file."""
    if size < HEADER_BYTES:
        raise _not_a_token_file(
            path, f"a header of {HEADER_BYTES:,} bytes", f"{size:,} bytes in all"
        )
    header = bytearray(HEADER_BYTES)
    read_into(memoryview(header), file, path)
    magic, version, count = struct.unpack_from("<3i", header)
    if magic != MAGIC:
        raise _not_a_token_file(path, f"magic number {MAGIC}", f"{magic}")
    if version != VERSION:
        raise DataError(
            f"token file has an unknown version: {path}",
            slug="token-file-version",
            expected=f"version {VERSION}",
            found=f"version {version}",
            do="convert it with harness.data.write_token_file",
        )
    expected = HEADER_BYTES + 2 * count
    if count < 0 or size != expected:
        raise DataError(
            f"token file has the wrong size: {path}",
            slug="token-file-size",
            expected=f"{expected:,} bytes, for {count:,} tokens" if count >= 0 else "a count >= 0",
            found=f"{size:,} bytes" if count >= 0 else f"{count:,} tokens",
            do="copy or make the file again",
        )
    return int(count)


def _not_a_token_file(path: Path, expected: str, found: str) -> DataError:
    return DataError(
        f"not a file of token ids: {path}",
        slug="token-file-unknown",
        expected=expected,
        found=found,
        do="make it with harness.data.write_token_file (nanoGPT's .bin files have no header),\n"
        "or data.source=text if it is text",
    )
