"""The file is one that the safetensors package reads, and a hostile one is refused with one error."""

import json
import os
import struct

import ml_dtypes
import numpy as np
import pytest
import safetensors
import safetensors.numpy
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.errors import CheckpointError, ResourceError
from harness.files import tensor_file

DTYPES = [np.dtype(name) for name in tensor_file.DTYPE_CODES if name != "bfloat16"]
DTYPES.append(np.dtype(ml_dtypes.bfloat16))


def written(arrays):
    return b"".join(bytes(piece) for piece in tensor_file.encode(arrays))


def hostile(header, payload=b""):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + payload


def tensor(dtype="F32", shape=(2,), offsets=(0, 8)):
    return {"dtype": dtype, "shape": list(shape), "data_offsets": list(offsets)}


@pytest.fixture
def file(tmp_path):
    return tmp_path / "model.safetensors"


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("shape", [(), (0,), (3,), (2, 3), (1, 0, 4), (2, 1, 3, 2)])
def test_the_package_reads_what_we_write(file, dtype, shape):
    array = np.arange(np.prod(shape), dtype=np.float64).reshape(shape).astype(dtype)
    file.write_bytes(written({"odd": np.ones(3, np.int8), "a": array}))
    (found,) = [
        fields for name, fields in safetensors.deserialize(file.read_bytes()) if name == "a"
    ]
    assert found["dtype"] == tensor_file.DTYPE_CODES[dtype.name]
    assert tuple(found["shape"]) == shape
    assert bytes(found["data"]) == array.tobytes()


@pytest.mark.parametrize("dtype", [dtype for dtype in DTYPES if dtype.kind != "V"], ids=str)
def test_we_read_what_the_package_writes(file, dtype):
    arrays = {"a": np.arange(6).reshape(2, 3).astype(dtype), "b": np.array(1, np.uint8)}
    safetensors.numpy.save_file(arrays, file, metadata={"format": "np"})
    found, record = tensor_file.read(file)
    assert set(found) == {"a", "b"}
    assert record.bytes == file.stat().st_size
    for name, array in arrays.items():
        np.testing.assert_array_equal(found[name], array, strict=True)


@pytest.mark.parametrize(
    "view",
    [
        lambda x: x.T,
        lambda x: x[::2],
        lambda x: x[:, ::-1],
        lambda x: np.broadcast_to(x[0], (4, 6)),
        lambda x: x.astype(x.dtype.newbyteorder(">")),
        np.asfortranarray,
    ],
    ids=["transposed", "every other row", "reversed", "broadcast", "big-endian", "Fortran"],
)
@pytest.mark.parametrize("dtype", [np.float32, np.int64, ml_dtypes.bfloat16])
def test_an_array_of_any_memory_order_is_saved_as_its_values(file, view, dtype):
    if dtype is ml_dtypes.bfloat16 and view(np.zeros((4, 6))).dtype.byteorder == ">":
        pytest.skip("ml_dtypes has no byte order")
    array = view(np.arange(24).reshape(4, 6).astype(dtype))
    file.write_bytes(written({"a": array}))
    found, _ = tensor_file.read(file)
    np.testing.assert_array_equal(found["a"].astype(np.float64), array.astype(np.float64))
    assert found["a"].flags.c_contiguous
    assert found["a"].dtype.isnative


def test_the_size_is_known_before_writing(file):
    arrays = {"a": np.zeros((3, 5)), "b": np.zeros(7, np.int8)}
    assert tensor_file.encoded_bytes(arrays) == len(written(arrays))


def test_a_header_can_be_made_before_the_tensors_are_there(file):
    header = tensor_file.header_of(
        [("w", "bfloat16", (2, 3)), ("b", "float32", (1,))], {"format": "pt"}
    )
    assert len(header) % 8 == 0
    file.write_bytes(header + bytes(2 * 6 + 4))
    found = safetensors.deserialize(file.read_bytes())  # in any order
    assert {name: (fields["dtype"], fields["shape"]) for name, fields in found} == {
        "w": ("BF16", [2, 3]),
        "b": ("F32", [1]),
    }
    assert {entry.name for entry in tensor_file.check_layout(file)} == {"w", "b"}


HOSTILE = {
    "nothing": b"",
    "seven bytes": b"1234567",
    "header beyond the file": struct.pack("<Q", 100) + b"{}",
    "header of 2**64": struct.pack("<Q", 2**64 - 1) + b"{}",
    "not UTF-8": hostile(b"\xff\xfe"),
    "not JSON": hostile(b"{'a': 1}"),
    "a list": hostile(b"[]"),
    "deep nesting": hostile(b"[" * 200_000),
    "a number of ten thousand digits": hostile(b'{"a": ' + b"9" * 10_000 + b"}"),
    "a repeated name": hostile(
        b'{"a":{"dtype":"U8","shape":[0],"data_offsets":[0,0]},'
        b'"a":{"dtype":"U8","shape":[0],"data_offsets":[0,0]}}'
    ),
    "fields that are text": hostile({"a": "F32"}),
    "a missing field": hostile({"a": {"dtype": "F32", "shape": [2]}}),
    "one field more": hostile({"a": tensor() | {"evil": 1}}, bytes(8)),
    "an unknown dtype": hostile({"a": tensor("object")}, bytes(8)),
    "a dtype that is a list": hostile({"a": tensor(["F32"])}, bytes(8)),
    "a negative extent": hostile({"a": tensor(shape=(-1, -2))}, bytes(8)),
    "a fractional extent": hostile({"a": tensor(shape=(2.0,))}, bytes(8)),
    "a Boolean extent": hostile({"a": tensor(shape=(2, True))}, bytes(8)),
    "too many dimensions": hostile({"a": tensor(shape=(1,) * 100 + (2,))}, bytes(8)),
    "a product that wraps around": hostile({"a": tensor(shape=(2**32, 2**32), offsets=(0, 0))}),
    "a huge shape": hostile({"a": tensor(shape=(2**40,))}, bytes(8)),
    "offsets beyond the file": hostile({"a": tensor()}, bytes(4)),
    "offsets that go back": hostile({"a": tensor(offsets=(8, 0))}, bytes(8)),
    "three offsets": hostile({"a": tensor(offsets=(0, 8, 8))}, bytes(8)),
    "overlap": hostile({"a": tensor(), "b": tensor(offsets=(4, 12))}, bytes(12)),
    "the same bytes twice": hostile({"a": tensor(), "b": tensor()}, bytes(8)),
    "a gap": hostile({"a": tensor(), "b": tensor(offsets=(12, 20))}, bytes(20)),
    "bytes at the end": hostile({"a": tensor()}, bytes(9)),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_file_is_one_checkpoint_error(file, name):
    file.write_bytes(HOSTILE[name])
    with pytest.raises(CheckpointError) as caught:
        tensor_file.check_layout(file)  # and so before any array is allocated
    assert caught.value.slug == "checkpoint-damaged"
    assert len(str(caught.value)) < 2000
    with pytest.raises(CheckpointError):
        tensor_file.read(file)


@pytest.mark.parametrize(
    "raw",
    [
        hostile({"a": tensor(shape=(0, 2**62, 2**62), offsets=(0, 0))}),
        hostile({"a": tensor("BOOL", (2,), (0, 2))}, b"\x01\x02"),
    ],
    ids=["empty, but beyond NumPy", "a Boolean of 2"],
)
def test_what_numpy_can_not_hold_is_one_checkpoint_error(file, raw):
    file.write_bytes(raw)
    with pytest.raises(CheckpointError) as caught:
        tensor_file.read(file)
    assert caught.value.slug == "checkpoint-damaged"


def test_a_sparse_file_beyond_memory_is_a_matter_of_resources(file, monkeypatch):
    file.write_bytes(hostile({"a": tensor()}, bytes(8)))

    def refuse(*arguments):
        raise MemoryError

    monkeypatch.setattr(np, "empty", refuse)
    with pytest.raises(ResourceError) as caught:
        tensor_file.read(file)
    assert caught.value.slug == "checkpoint-too-large"


def lowest_free_descriptor():
    descriptor = os.open(os.devnull, os.O_RDONLY)
    os.close(descriptor)
    return descriptor


def test_a_folder_in_the_place_of_a_file_is_said_and_not_kept_open(tmp_path):
    before = lowest_free_descriptor()
    with pytest.raises(CheckpointError) as caught:
        tensor_file.read(tmp_path)
    assert caught.value.facts["found"] == "a folder"
    assert lowest_free_descriptor() == before


GOOD = written({"w": np.arange(6, dtype=np.float32).reshape(2, 3), "b": np.ones(5, np.int8)})


@given(st.data())
@settings(max_examples=300)
def test_a_mutant_is_read_or_refused_and_nothing_else(tmp_path_factory, data):
    raw = bytearray(GOOD)
    for _ in range(data.draw(st.integers(1, 4))):
        index = data.draw(st.integers(0, len(raw) - 1))
        raw[index] = data.draw(st.integers(0, 255))
    raw = raw[: data.draw(st.integers(0, len(raw)))] if data.draw(st.booleans()) else raw
    file = tmp_path_factory.getbasetemp() / "mutant.safetensors"
    file.write_bytes(raw)
    try:
        arrays, _ = tensor_file.read(file)
    except CheckpointError:
        return
    assert sum(array.nbytes for array in arrays.values()) <= len(GOOD)
