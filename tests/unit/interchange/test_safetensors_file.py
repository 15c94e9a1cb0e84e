"""Tensor by tensor and block by block; the safetensors package is the referee."""

import tracemalloc

import ml_dtypes
import numpy as np
import pytest
import safetensors.numpy

from harness.errors import CheckpointError
from harness.interchange import safetensors_file
from harness.interchange.safetensors_file import SafetensorsFile, write_safetensors

BFLOAT16 = np.dtype(ml_dtypes.bfloat16)
DTYPES = pytest.mark.parametrize(
    "dtype", [np.dtype(np.float32), np.dtype(np.float16), BFLOAT16], ids=str
)
MEBIBYTE = 1 << 20


@pytest.fixture
def path(tmp_path):
    return tmp_path / "model.safetensors"


@pytest.fixture(params=[16, 100, 1 << 20], ids=lambda nbytes: f"blocks of {nbytes}")
def block_bytes(request, monkeypatch):
    monkeypatch.setattr(safetensors_file, "BLOCK_BYTES", request.param)


@DTYPES
@pytest.mark.parametrize(
    "shape", [(7,), (7, 5), (1, 9), (9, 1), (0, 3), (3, 0), (2, 3, 4)], ids=str
)
def test_what_the_package_wrote_is_read_in_blocks_of_any_size(path, block_bytes, dtype, shape):
    count = int(np.prod(shape))
    array = np.random.default_rng(1).standard_normal(count).reshape(shape).astype(dtype)
    safetensors.numpy.save_file({"before": np.ones(3, np.int8), "a": array}, path)
    with SafetensorsFile(path) as file:
        assert {name: entry.shape for name, entry in file.entries.items()}["a"] == shape
        out = np.full(shape, np.nan, np.float32)
        file.read_into("a", out)
        np.testing.assert_array_equal(out, array.astype(np.float32))
        if len(shape) == 2:
            turned = np.full(shape[::-1], np.nan, np.float32)
            file.read_into("a", turned, transposed=True)
            np.testing.assert_array_equal(turned, array.T.astype(np.float32))
        whole = [block.copy() for _, block in file.blocks("a")]
        assert sum(map(len, whole)) == shape[0]
        assert [start for start, _ in file.blocks("a")] == list(
            np.cumsum([0, *map(len, whole)])[:-1]
        )


def test_the_package_reads_what_is_written_in_pieces(path):
    a, b = np.arange(12, dtype=np.float32).reshape(3, 4), np.ones(5, BFLOAT16)
    pieces = [a[:1].tobytes(), a[1:].tobytes(), b.tobytes()]
    tensors = [("a", "float32", (3, 4)), ("b", "bfloat16", (5,))]
    record = write_safetensors(path, tensors, iter(pieces), {"format": "pt"})
    assert record.bytes == path.stat().st_size
    with safetensors.safe_open(path, framework="numpy") as file:
        assert file.metadata() == {"format": "pt"}
        np.testing.assert_array_equal(file.get_tensor("a"), a)
    with SafetensorsFile(path) as file:
        out = np.zeros(5, np.float32)
        file.read_into("b", out)
        assert out.tolist() == [1] * 5


def test_pieces_that_are_not_the_promised_bytes_are_a_mistake(path):
    with pytest.raises(AssertionError, match="promised"):
        write_safetensors(path, [("a", "float32", (3,))], [bytes(8)])


def test_a_file_that_became_shorter_is_one_error(path):
    safetensors.numpy.save_file({"a": np.ones(1000, np.float32)}, path)
    with SafetensorsFile(path) as file:
        path.write_bytes(path.read_bytes()[:500])
        with pytest.raises(CheckpointError, match="damaged"):
            file.read_into("a", np.empty(1000, np.float32))


def test_a_file_that_is_refused_is_closed(path, recwarn):
    path.write_bytes(b"12345678")
    with pytest.raises(CheckpointError):
        SafetensorsFile(path)
    with pytest.raises(CheckpointError):
        SafetensorsFile(path.parent)
    assert not recwarn.list  # an open file that is forgotten is a ResourceWarning


@DTYPES
@pytest.mark.parametrize("transposed", [False, True], ids=["as stored", "turned around"])
def test_a_tensor_of_32_mebibytes_is_read_with_a_few_beside_it(path, dtype, transposed):
    shape = (2048, 4096)
    array = np.random.default_rng(1).integers(-99, 99, shape, np.int8).astype(dtype)
    safetensors.numpy.save_file({"a": array}, path)
    out = np.empty(shape[::-1] if transposed else shape, np.float32)
    assert out.nbytes == 32 * MEBIBYTE
    tracemalloc.start()
    try:
        with SafetensorsFile(path) as file:
            file.read_into("a", out, transposed=transposed)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 4 * MEBIBYTE
    assert np.array_equal(out, (array.T if transposed else array).astype(np.float32))
