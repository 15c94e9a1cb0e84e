"""llm.c's model files."""

import os
import time
import tracemalloc

import ml_dtypes
import numpy as np
import pytest

from harness.errors import CheckpointError, ConfigError, HarnessError, NumericsError, ResourceError
from harness.interchange.llmc import file as llmc_file
from harness.interchange.llmc.layout import Run
from harness.interchange.llmc.model import LlmcModel, model_bytes, write_llmc_model
from harness.models.gpt2 import GPT2
from tests.unit.interchange import llmc_by_hand as by_hand
from tests.unit.interchange.llmc_by_hand import GPT2_124M, MODEL, changed

FLOAT32, BFLOAT16 = np.dtype(np.float32), np.dtype(ml_dtypes.bfloat16)
KINDS = by_hand.random_kinds(seed=1)
VERSIONS = pytest.mark.parametrize(("version", "dtype"), [(3, "float32"), (5, "bfloat16")])


@pytest.fixture
def write(tmp_path):
    def write(data):
        path = tmp_path / "model.bin"
        path.write_bytes(data)
        return path

    return write


def test_a_file_written_by_hand_is_read(write):
    with LlmcModel(write(by_hand.model_file(KINDS))) as found:
        assert found.model == MODEL
        assert found.dtype == FLOAT32
        assert found.description == "llm.c model, version 3, float32"
        for name, expected in by_hand.tensors(KINDS).items():
            out = np.full(expected.shape, np.nan, np.float32)
            found.read_into(name, out)
            assert np.array_equal(out, expected), name


def test_bfloat16_is_read_as_the_numbers_it_stands_for(write):
    with LlmcModel(write(by_hand.model_file(KINDS, version=5))) as found:
        assert found.dtype == BFLOAT16
        for name, values in by_hand.tensors(KINDS).items():
            out = np.empty(values.shape, np.float32)
            found.read_into(name, out)
            assert np.array_equal(out, values.astype(ml_dtypes.bfloat16).astype(np.float32)), name


@VERSIONS
def test_a_round_trip_gives_the_same_bytes(write, tmp_path, version, dtype):
    path = write(by_hand.model_file(KINDS, version))
    with LlmcModel(path) as source:
        write_llmc_model(tmp_path / "again.bin", source, dtype)
    assert (tmp_path / "again.bin").read_bytes() == path.read_bytes()
    assert sorted(os.listdir(tmp_path)) == ["again.bin", "model.bin"]


def test_a_file_can_be_replaced_by_what_is_read_from_it(write):
    path = write(by_hand.model_file(KINDS))
    with LlmcModel(path) as source:
        write_llmc_model(path, source, "bfloat16")
    assert path.read_bytes() == by_hand.model_file(KINDS, version=5)


def test_bfloat16_is_rounded_to_the_nearest_with_ties_to_even(tmp_path):
    kinds = {kind: values.copy() for kind, values in KINDS.items()}
    # Halfway between two bfloat16, a bit above and below, and with an odd and an even neighbour.
    bits = [0x3F800000 + odd + low for odd in (0, 0x10000) for low in (0x7FFF, 0x8000, 0x8001)]
    kinds["lnfw"][:6] = np.array(bits, np.uint32).view(np.float32)
    write_llmc_model(tmp_path / "model.bin", by_hand.InMemory(kinds), "bfloat16")
    data = (tmp_path / "model.bin").read_bytes()
    assert data == by_hand.model_file(kinds, version=5)
    found = np.frombuffer(data, "<u2")[-16:-10]
    assert found.tolist() == [0x3F80, 0x3F80, 0x3F81, 0x3F81, 0x3F82, 0x3F82]


def test_conversion_by_blocks_has_no_seams(write, tmp_path, monkeypatch):
    monkeypatch.setattr(llmc_file, "BLOCK_BYTES", 34)
    monkeypatch.setattr("harness.interchange.llmc.model.BLOCK_BYTES", 34)
    path = write(by_hand.model_file(KINDS, version=5))
    with LlmcModel(path) as source:
        write_llmc_model(tmp_path / "again.bin", source, "bfloat16")
    assert (tmp_path / "again.bin").read_bytes() == path.read_bytes()


@VERSIONS
def test_padding_rows_are_read_and_written_as_zero(write, tmp_path, version, dtype):
    junk = {kind: values.copy() for kind, values in KINDS.items()}
    junk["wte"][131:] = np.nan
    with LlmcModel(write(by_hand.model_file(junk, version))) as source:
        write_llmc_model(tmp_path / "again.bin", source, dtype)
    write_llmc_model(tmp_path / "memory.bin", by_hand.InMemory(junk), dtype)
    for name in ("again.bin", "memory.bin"):
        assert (tmp_path / name).read_bytes() == by_hand.model_file(KINDS, version), name


# -- GPT-2 124M, by arithmetic ------------------------------------------------------------------


def test_gpt2_124m_has_its_published_sizes():
    assert model_bytes(GPT2_124M, FLOAT32) == 497_904_640
    assert model_bytes(GPT2_124M, BFLOAT16) == 248_952_832


@pytest.mark.parametrize(
    ("name", "float32", "bfloat16"),
    [
        ("wte", 1_024, 1_024),
        ("wpe", 154_534_912, 77_267_968),
        ("ln1w.0", 157_680_640, 78_840_832),
        ("ln1b.0", 157_717_504, 78_859_264),
        ("qkvw.0", 157_754_368, 78_877_696),
        ("qkvb.0", 242_689_024, 121_345_024),
        ("attprojw.0", 242_799_616, 121_400_320),
        ("attprojb.0", 271_111_168, 135_556_096),
        ("ln2w.0", 271_148_032, 135_574_528),
        ("ln2b.0", 271_184_896, 135_592_960),
        ("fcw.0", 271_221_760, 135_611_392),
        ("fcb.0", 384_467_968, 192_234_496),
        ("fcprojw.0", 384_615_424, 192_308_224),
        ("fcprojb.0", 497_861_632, 248_931_328),
        ("lnfw", 497_898_496, 248_949_760),
        ("lnfb", 497_901_568, 248_951_296),
        ("qkvw.11", 242_689_024 - 4 * 3 * 768 * 768, 121_345_024 - 2 * 3 * 768 * 768),
        ("fcprojb.1", 497_861_632 + 4 * 768, 248_931_328 + 2 * 768),
    ],
)
def test_a_tensor_of_gpt2_124m_lies_where_llm_c_has_it(name, float32, bfloat16):
    assert 1024 + 4 * Run(GPT2_124M).offset(name) == float32
    assert 1024 + 2 * Run(GPT2_124M).offset(name) == bfloat16


# -- files that are not what they should be -----------------------------------------------------

WHOLE = by_hand.model_file(KINDS)
DAMAGED = {
    "empty": (b"", "llmc-file-unknown", "0 bytes in all"),
    "header cut": (WHOLE[:1023], "llmc-file-unknown", "1,023 bytes in all"),
    "header alone": (WHOLE[:1024], "llmc-file-size", "1,024 bytes"),
    "last byte cut": (WHOLE[:-1], "llmc-file-size", f"{len(WHOLE) - 1:,} bytes"),
    "a byte more": (WHOLE + b"\0", "llmc-file-size", f"{len(WHOLE) + 1:,} bytes"),
    "twice": (WHOLE * 2, "llmc-file-size", f"{2 * len(WHOLE):,} bytes"),
    "tokens": (changed(WHOLE, 0, "<i", 20240520), "llmc-file-unknown", "a file of token ids"),
    "noise": (changed(WHOLE, 0, "<i", 12345), "llmc-file-unknown", "12345"),
    "other end first": (changed(WHOLE, 0, ">i", 20240326), "llmc-file-unknown", "not a number"),
    "version": (changed(WHOLE, 4, "<i", 2), "llmc-version", "version 2"),
    "version of bfloat16": (changed(WHOLE, 4, "<i", 5), "llmc-file-size", f"{len(WHOLE):,}"),
    "unused slot": (changed(WHOLE, 32, "<i", 1), "llmc-header-damaged", "1"),
    "last slot": (changed(WHOLE, 1020, "<i", -1), "llmc-header-damaged", "-1"),
    "no layers": (changed(WHOLE, 16, "<i", 0), "llmc-header-damaged", "0"),
    "negative": (changed(WHOLE, 24, "<i", -8), "llmc-header-damaged", "-8"),
    "heads": (changed(WHOLE, 20, "<i", 3), "llmc-header-damaged", "3 heads"),
    "padding": (changed(WHOLE, 28, "<i", 131), "llmc-header-damaged", "131"),
    "many layers": (changed(WHOLE, 16, "<i", 2**31 - 1), "llmc-file-size", f"{len(WHOLE):,}"),
    "many positions": (changed(WHOLE, 8, "<i", 2**31 - 1), "llmc-file-size", f"{len(WHOLE):,}"),
    "wide": (changed(WHOLE, 24, "<i", 2**31 - 2), "llmc-file-size", f"{len(WHOLE):,}"),
}


@pytest.mark.parametrize(("data", "slug", "found"), DAMAGED.values(), ids=DAMAGED)
def test_a_damaged_file_is_refused_with_what_was_found(write, data, slug, found):
    path = write(data)
    start = time.process_time()
    tracemalloc.start()
    try:
        with pytest.raises(CheckpointError) as caught:
            LlmcModel(path)
        most = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert caught.value.slug == slug
    assert found in caught.value.facts["found"]
    assert most < 1 << 20
    assert time.process_time() - start < 1


def test_a_file_cut_anywhere_is_refused(write):
    for length in range(0, len(WHOLE), 257):
        with pytest.raises(CheckpointError):
            LlmcModel(write(WHOLE[:length]))


def test_a_mutant_is_read_or_refused_with_one_typed_error(write):
    rng = np.random.default_rng(0)
    refused = 0
    for _ in range(300):
        byte = int(rng.integers(0, 40 if rng.random() < 0.7 else len(WHOLE) - 4))
        path = write(changed(WHOLE, byte, "<I", int(rng.integers(0, 2**32))))
        try:
            with LlmcModel(path) as source:
                source.check()
        except HarnessError:
            refused += 1
    assert refused > 150


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@VERSIONS
def test_a_number_that_is_not_finite_is_refused_by_its_place(write, version, dtype, value):
    kinds = {kind: values.copy() for kind, values in KINDS.items()}
    kinds["qkvw"][1, 5, 3] = value
    with LlmcModel(write(by_hand.model_file(kinds, version))) as source:
        with pytest.raises(NumericsError, match=r"qkvw\.1\[5, 3\]"):
            source.read_into("qkvw.1", np.empty((24, 8), np.float32))
        with pytest.raises(NumericsError, match=r"qkvw\.1\[5, 3\]"):
            source.check()
        source.read_into("qkvw.0", np.empty((24, 8), np.float32))


def test_a_file_that_shrinks_after_it_was_opened_is_an_error(write):
    path = write(WHOLE)
    with LlmcModel(path) as source:
        os.truncate(path, len(WHOLE) - 40)
        source.read_into("wte", np.empty((256, 8), np.float32))
        with pytest.raises(CheckpointError, match="became shorter") as caught:
            source.read_into("lnfb", np.empty(8, np.float32))
    assert caught.value.slug == "llmc-file-changed"


def test_a_name_without_a_file_and_a_folder_are_explained(tmp_path):
    with pytest.raises(CheckpointError, match="no such file"):
        LlmcModel(tmp_path / "none.bin")
    for path in (tmp_path, "a\0b"):
        with pytest.raises(CheckpointError, match="can't be read"):
            LlmcModel(path)


def test_a_pipe_is_refused_without_waiting(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(CheckpointError, match="can't be read"):
        LlmcModel(tmp_path / "pipe")


# -- writing fails ------------------------------------------------------------------------------


@pytest.fixture(params=[None, b"the file before"], ids=["no file", "an older file"])
def target(request, tmp_path):
    """A path, and a check that it and its folder are as they were."""
    path = tmp_path / "target.bin"
    if request.param is not None:
        path.write_bytes(request.param)
    yield path
    assert os.listdir(tmp_path) == ([] if request.param is None else ["target.bin"])
    if request.param is not None:
        assert path.read_bytes() == request.param


@VERSIONS
@pytest.mark.parametrize("name", ["wte", "fcw.1", "lnfb"])
def test_nothing_is_half_written_when_the_source_fails(target, name, version, dtype):
    with pytest.raises(RuntimeError, match=f"no {name}"):
        write_llmc_model(target, by_hand.InMemory(KINDS, fails_at=name), dtype)


@VERSIONS
def test_a_number_that_is_not_finite_is_not_written(target, version, dtype):
    kinds = {kind: values.copy() for kind, values in KINDS.items()}
    kinds["lnfb"][-1] = np.nan
    with pytest.raises(NumericsError, match=r"lnfb\[7\]"):
        write_llmc_model(target, by_hand.InMemory(kinds), dtype)


def test_a_number_beyond_bfloat16_is_not_written(target):
    kinds = {kind: values.copy() for kind, values in KINDS.items()}
    kinds["lnfb"][-1] = 3.4e38
    with pytest.raises(NumericsError, match="lnfb has a number beyond bfloat16") as caught:
        write_llmc_model(target, by_hand.InMemory(kinds), "bfloat16")
    assert caught.value.facts["expected"] == "at most 3.39e+38"


def test_a_disk_that_fails_leaves_the_file_before(target, monkeypatch):
    def full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(ResourceError, match="can't be written") as caught:
        write_llmc_model(target, by_hand.InMemory(KINDS))
    assert "No space left" in caught.value.facts["found"]


def test_a_disk_that_gives_back_something_else_leaves_the_file_before(target, monkeypatch):
    honest = llmc_file.measure

    def damage(path, size):
        path.write_bytes(changed(path.read_bytes(), 5000, "<i", 1))
        return honest(path, size)

    monkeypatch.setattr(llmc_file, "measure", damage)
    with pytest.raises(ResourceError, match="can't be written") as caught:
        write_llmc_model(target, by_hand.InMemory(KINDS))
    assert "read back" in caught.value.facts["found"]


def test_another_number_format_is_a_config_error(target):
    with pytest.raises(ConfigError, match="no models in float16"):
        write_llmc_model(target, by_hand.InMemory(KINDS), "float16")


def test_writing_and_reading_take_the_memory_of_one_tensor(tmp_path):
    model = GPT2(layers=4, heads=4, channels=256, positions=64, vocab_size=4096)

    class Constant(by_hand.InMemory):
        def __init__(self):
            self.model = model

        def read_into(self, name, out):
            out[...] = 0.5

    def peak(work):
        tracemalloc.start()
        try:
            work()
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    largest, block = 4096 * 256 * 4, 4 << 20
    for dtype in ("float32", "bfloat16"):
        path = tmp_path / f"{dtype}.bin"
        assert (
            peak(lambda p=path, d=dtype: write_llmc_model(p, Constant(), d)) < largest + 2 * block
        )
        out = np.empty((4096, 256), np.float32)
        with LlmcModel(path) as source:
            assert peak(lambda s=source, o=out: s.read_into("wte", o)) < block + (2 << 20)
        assert (out == 0.5).all()
