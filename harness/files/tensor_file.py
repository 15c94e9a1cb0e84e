"""Write and read a group of named NumPy arrays as a safetensors file.

    8 bytes     length of the header, little-endian
    header      JSON: name -> {"dtype": "F32", "shape": [2, 3], "data_offsets": [begin, end]}
    payload     the arrays, C-ordered and little-endian, one after the other without gaps

The safetensors package is the referee of the tests and not used here, for three reasons: its NumPy half
cannot read bfloat16, it writes a transposed array as if it were not, and it has the whole file in
memory once more. Here the payload is hashed on its way to the disk and on its way back.
"""

import hashlib
import io
import json
import math
import struct
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from harness.errors import CheckpointError, ResourceError, shortened
from harness.files.checkpoint_names import damaged
from harness.files.disk import FileRecord, open_file, read_exactly
from harness.files.json_file import parse

DTYPE_CODES = {
    "float64": "F64",
    "float32": "F32",
    "float16": "F16",
    "bfloat16": "BF16",
    "int64": "I64",
    "uint64": "U64",
    "int32": "I32",
    "uint32": "U32",
    "int16": "I16",
    "uint16": "U16",
    "int8": "I8",
    "uint8": "U8",
    "bool": "BOOL",
}
DTYPE_NAMES = {code: name for name, code in DTYPE_CODES.items()}

LENGTH = struct.Struct("<Q")
MAX_HEADER_BYTES = 16 << 20  # 200 tensors need 20 kB; as Python objects it grows 20 fold
MAX_DIMENSIONS = 32
METADATA = "__metadata__"  # the one key that is not a tensor: texts of the writer's


def encode_header(arrays: Mapping[str, np.ndarray]) -> bytes:
    """The length and the header of the file that holds arrays."""
    return header_of(
        [(name, arrays[name].dtype.name, arrays[name].shape) for name in _payload_order(arrays)]
    )


def header_of(
    tensors: Iterable[tuple[str, str, Sequence[int]]], metadata: Mapping[str, str] | None = None
) -> bytes:
    """The length and the header of the file that holds tensors, in the order of their payload.

    tensors: name, NumPy's name of the dtype, and shape. metadata: texts that some readers ask for.
    """
    header: dict[str, Any] = {METADATA: dict(metadata)} if metadata else {}
    end = 0
    for name, dtype, shape in tensors:
        begin, end = end, end + math.prod(shape) * dtype_of(dtype).itemsize
        header[name] = {
            "dtype": DTYPE_CODES[dtype],
            "shape": list(shape),
            "data_offsets": [begin, end],
        }
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)  # the payload begins aligned
    return LENGTH.pack(len(text)) + text


def encode(arrays: Mapping[str, np.ndarray]) -> Iterator[bytes | memoryview]:
    """The bytes of the file that holds arrays, piece by piece; no more than one array is copied."""
    yield encode_header(arrays)
    for name in _payload_order(arrays):
        array = arrays[name]
        yield _bytes_of(array.astype(dtype_of(array.dtype.name), copy=False))


def encoded_bytes(arrays: Mapping[str, np.ndarray]) -> int:
    return len(encode_header(arrays)) + sum(array.nbytes for array in arrays.values())


def check_dtypes(group: str, arrays: Mapping[str, np.ndarray]) -> None:
    """Refuse arrays that the format has no name for."""
    for name, array in arrays.items():
        if array.dtype.name not in DTYPE_CODES:
            raise CheckpointError(
                f"a checkpoint can't hold {array.dtype}: {group}/{name}",
                slug="checkpoint-dtype-unknown",
                expected=", ".join(DTYPE_CODES),
                found=str(array.dtype),
            )


@dataclass(frozen=True)
class Entry:
    """One array in the header, checked: its bytes lie in the payload and fit its shape."""

    name: str
    dtype: str  # NumPy's name
    shape: tuple[int, ...]
    begin: int  # in the payload
    end: int


def check_layout(path: Path) -> list[Entry]:
    """The arrays that the file's header promises; CheckpointError unless the payload holds just them."""
    with open_file(path) as (file, size):
        return read_header(file, size, path)[1]


def read(path: Path) -> tuple[dict[str, np.ndarray], FileRecord]:
    """The arrays of a safetensors file, each its own memory, and what was read as size and sha256.

    Nothing is allocated before the header agrees with the file's size.
    """
    arrays = {}
    with open_file(path) as (file, size):
        header, entries = read_header(file, size, path)
        digest = hashlib.sha256(header)
        for entry in entries:
            array = _allocate(entry, path)
            read_exactly(file, _bytes_of(array), path)
            digest.update(_bytes_of(array))
            if entry.dtype == "bool" and array.size and array.view(np.uint8).max() > 1:
                raise damaged(path, expected="booleans of 0 and 1", found=f"others in {entry.name}")
            arrays[entry.name] = array
        if file.read(1):
            raise damaged(path, expected=f"{size:,} bytes", found="more: it grew while it was read")
    return arrays, FileRecord(size, digest.hexdigest())


def read_header(file: io.FileIO, size: int, path: Path) -> tuple[bytes, list[Entry]]:
    """The bytes before the payload, and the arrays they promise, checked against the file's size."""
    if size < LENGTH.size:
        raise damaged(path, expected=f"at least {LENGTH.size} bytes", found=f"{size:,}")
    prefix = bytearray(LENGTH.size)
    read_exactly(file, memoryview(prefix), path)
    (length,) = LENGTH.unpack(prefix)
    if length > min(size - LENGTH.size, MAX_HEADER_BYTES):
        raise damaged(
            path,
            expected=f"a header within the file's {size:,} bytes, and not above "
            f"{MAX_HEADER_BYTES:,}",
            found=f"a header of {length:,} bytes",
        )
    text = bytearray(length)
    read_exactly(file, memoryview(text), path)
    try:
        header = parse(text)
    except (ValueError, RecursionError) as error:
        raise damaged(path, expected="a header in JSON", found=shortened(error)) from None
    if not isinstance(header, dict):
        raise damaged(path, expected="a header of named tensors", found=shortened(header))
    header.pop(METADATA, None)
    entries = [_entry(name, fields, path) for name, fields in header.items()]
    entries.sort(key=lambda entry: (entry.begin, entry.end))
    _check_offsets(entries, size - LENGTH.size - length, path)
    return bytes(prefix + text), entries


def _entry(name: str, fields: Any, path: Path) -> Entry:
    if not isinstance(fields, dict) or fields.keys() != {"dtype", "shape", "data_offsets"}:
        expected = f"dtype, shape and data_offsets of {shortened(name)}"
        raise damaged(path, expected=expected, found=shortened(fields))
    dtype, shape, offsets = fields["dtype"], fields["shape"], fields["data_offsets"]
    if not isinstance(dtype, str) or dtype not in DTYPE_NAMES:
        expected = f"the dtype of {shortened(name)} as one of {', '.join(DTYPE_NAMES)}"
        raise damaged(path, expected=expected, found=shortened(dtype))
    if not _are_counts(shape) or len(shape) > MAX_DIMENSIONS:
        expected = f"the shape of {shortened(name)} as at most {MAX_DIMENSIONS} counts"
        raise damaged(path, expected=expected, found=shortened(shape))
    if not _are_counts(offsets) or len(offsets) != 2:
        expected = f"the offsets of {shortened(name)} as two counts"
        raise damaged(path, expected=expected, found=shortened(offsets))
    begin, end = offsets
    # In Python integers: the product of a hostile shape does not wrap around.
    wanted = math.prod(shape) * dtype_of(DTYPE_NAMES[dtype]).itemsize
    if end - begin != wanted:
        expected = f"{shortened(wanted)} bytes for {shortened(name)} {dtype} {shortened(shape)}"
        raise damaged(path, expected=expected, found=f"offsets {shortened(offsets)}")
    return Entry(name, DTYPE_NAMES[dtype], tuple(shape), begin, end)


def _check_offsets(entries: list[Entry], payload_bytes: int, path: Path) -> None:
    end = 0
    for entry in entries:
        if entry.begin != end:
            raise damaged(
                path,
                expected=f"{shortened(entry.name)} to begin at {end:,}, where the one before it ends",
                found=shortened(entry.begin),
            )
        end = entry.end
    if end != payload_bytes:
        raise damaged(
            path, expected=f"{shortened(end)} bytes of tensors", found=f"{payload_bytes:,}"
        )


def _allocate(entry: Entry, path: Path) -> np.ndarray:
    try:
        return np.empty(entry.shape, dtype_of(entry.dtype))
    except ValueError as error:  # an empty array whose other extents are beyond NumPy
        raise damaged(path, expected="a shape for NumPy", found=shortened(error)) from None
    except MemoryError as error:
        raise ResourceError(
            f"checkpoint does not fit into memory: {path.name}",
            slug="checkpoint-too-large",
            where=path,
            found=f"{entry.end - entry.begin:,} bytes for {entry.name}",
        ) from error


def _payload_order(arrays: Mapping[str, np.ndarray]) -> list[str]:
    """Wide elements first: then every array begins at a multiple of its element size."""
    assert METADATA not in arrays, f"{METADATA} is no name for a tensor"
    return sorted(arrays, key=lambda name: -arrays[name].dtype.itemsize)


def dtype_of(name: str) -> np.dtype:
    """The dtype of that name as the file holds it: little-endian."""
    if name == "bfloat16":
        import ml_dtypes

        return np.dtype(ml_dtypes.bfloat16)
    return np.dtype(name).newbyteorder("<")


def _bytes_of(array: np.ndarray) -> memoryview:
    """The elements in C order: the array's own memory, or a copy if that is in another order."""
    # As uint8, because bfloat16 has no buffer interface of its own.
    return array.reshape(-1).view(np.uint8).data


def _are_counts(values: Any) -> bool:
    # bool is a subclass of int, and JSON has both
    return isinstance(values, list) and all(type(x) is int and 0 <= x < 1 << 63 for x in values)
