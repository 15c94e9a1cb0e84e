"""Folders that we write, read by the safetensors package, and by us once more."""

import json
import os
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy

from harness import tokenizers
from harness.errors import CheckpointError, ConfigError, NumericsError, ResourceError
from harness.interchange.huggingface import writing as huggingface_writing
from harness.interchange.huggingface.folder import HuggingFaceModel
from harness.interchange.huggingface.writing import write_huggingface
from harness.models.gpt2 import GPT2
from tests.unit.interchange import huggingface_by_hand as by_hand
from tests.unit.interchange.huggingface_by_hand import BFLOAT16, CONFIG, MODEL, C, V

WEIGHTS = by_hand.random_weights()
FULL = by_hand.prefixed(WEIGHTS)


class Stored:
    """A ModelFile in memory."""

    path = Path("somewhere")
    description = "in memory"

    def __init__(self, weights=WEIGHTS, model=MODEL, tokenizer=None, dtype=np.float32):
        self.arrays, self.model, self.tokenizer = by_hand.ours(weights), model, tokenizer
        self.dtype = np.dtype(dtype)
        self.given = []

    def read_into(self, name, out):
        self.given.append(name)
        out[:] = self.arrays[name]

    def close(self):
        pass


@pytest.fixture
def out(tmp_path):
    return tmp_path / "out"


def assert_nothing_is_left(out):
    assert os.listdir(out.parent) == []


def test_the_package_reads_what_we_write_with_every_byte_of_it(out):
    write_huggingface(out, Stored())
    found = safetensors.numpy.load_file(out / "model.safetensors")
    assert found.keys() == FULL.keys()
    for name, expected in FULL.items():
        np.testing.assert_array_equal(found[name], expected, strict=True, err_msg=name)
    with safetensors.safe_open(out / "model.safetensors", framework="numpy") as file:
        assert file.metadata() == {"format": "pt"}


@pytest.mark.parametrize("several", [False, True], ids=["one file", "several files"])
@pytest.mark.parametrize("arrays", [WEIGHTS, FULL], ids=["without a head", "with the prefix"])
def test_read_and_written_the_tensors_are_the_same_bytes(tmp_path, out, arrays, several):
    write = by_hand.write_shards if several else by_hand.write_folder
    with HuggingFaceModel(write(tmp_path / "gpt2", arrays)) as source:
        write_huggingface(out, source)
    found = safetensors.numpy.load_file(out / "model.safetensors")
    assert {name: array.tobytes() for name, array in found.items()} == {
        name: array.tobytes() for name, array in FULL.items()
    }
    with HuggingFaceModel(out) as again:
        assert (again.model, again.dtype) == (MODEL, np.dtype(np.float32))


@pytest.mark.parametrize("dtype", [BFLOAT16, np.dtype(np.float16)], ids=str)
def test_sixteen_bits_are_the_nearest_numbers_and_stay_as_they_are(tmp_path, out, dtype):
    write_huggingface(out, Stored(), dtype.name)
    expected = by_hand.ours({name: values.astype(dtype) for name, values in WEIGHTS.items()})
    with HuggingFaceModel(out) as found:
        assert found.dtype == dtype
        for name, values in expected.items():
            given = np.empty(values.shape, np.float32)
            found.read_into(name, given)
            np.testing.assert_array_equal(given, values, err_msg=name)
        write_huggingface(tmp_path / "again", found)  # in the format that it has
    files = [folder / "model.safetensors" for folder in (out, tmp_path / "again")]
    assert files[0].read_bytes() == files[1].read_bytes()
    assert json.loads((out / "config.json").read_text())["dtype"] == dtype.name


def test_the_config_says_what_the_hand_written_one_says(out):
    write_huggingface(out, Stored())
    config = json.loads((out / "config.json").read_text())
    assert config == {key: value for key, value in CONFIG.items() if key != "attn_pdrop"}


def test_the_tokenizer_comes_back_and_its_end_of_text_is_in_the_config(out):
    tokenizer = tokenizers.get("char", "to be or not")
    write_huggingface(out, Stored(tokenizer=tokenizer))
    with HuggingFaceModel(out) as found:
        assert found.tokenizer == tokenizer
    config = json.loads((out / "config.json").read_text())
    assert (config["bos_token_id"], config["eos_token_id"]) == (None, None)
    gpt2 = tokenizers.get("gpt2")
    model = GPT2(MODEL.layers, MODEL.heads, C, MODEL.positions, gpt2.vocab_size)
    assert huggingface_writing.config_of(model, "float32", gpt2)["eos_token_id"] == 50_256


def test_each_tensor_is_asked_for_once(out):
    stored = Stored()
    write_huggingface(out, stored)
    assert sorted(stored.given) == sorted(stored.arrays)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_reading_and_writing_need_little_beside_one_tensor(tmp_path, out, dtype):
    model = GPT2(layers=1, heads=4, channels=512, positions=64, vocab_size=16_384)
    largest = 4 * 512 * 16_384  # bytes: the token embedding, 32 MiB; the model has 12 MiB more

    class Zeros(Stored):
        def __init__(self):
            self.model, self.tokenizer, self.dtype = model, None, np.dtype(np.float32)

        def read_into(self, name, out):
            out[:] = 0.5

    write_huggingface(tmp_path / "gpt2", Zeros(), dtype)
    with HuggingFaceModel(tmp_path / "gpt2") as source:
        tracemalloc.start()
        try:
            write_huggingface(out, source, dtype)
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
    assert peak < largest + (8 << 20)
    assert (out / "model.safetensors").stat().st_size > largest * (
        2 if dtype == "bfloat16" else 4
    ) // 4


def test_padding_rows_are_not_written_whatever_they_hold(out):
    stored = Stored()
    stored.arrays["wte"][V:] = 7
    write_huggingface(out, stored)
    found = safetensors.numpy.load_file(out / "model.safetensors")["transformer.wte.weight"]
    np.testing.assert_array_equal(found, WEIGHTS["wte.weight"])


@pytest.mark.parametrize(
    ("dtype", "value", "slug"),
    [
        ("float32", np.nan, "huggingface-not-finite"),
        ("float16", np.inf, "huggingface-not-finite"),
        ("float16", 1e6, "huggingface-overflow"),
        ("bfloat16", 3.4e38, "huggingface-overflow"),
    ],
)
def test_what_the_format_can_not_hold_is_refused_and_nothing_is_left(out, dtype, value, slug):
    stored = Stored()
    stored.arrays["fcw.1"][3, 2] = value
    with pytest.raises(NumericsError, match=r"fcw\.1") as caught:
        write_huggingface(out, stored, dtype)
    assert caught.value.slug == slug
    assert_nothing_is_left(out)


@pytest.mark.parametrize("dtype", ["float64", "int8", "", "bf16"])
def test_a_format_that_is_none_is_refused(out, dtype):
    with pytest.raises(ConfigError) as caught:
        write_huggingface(out, Stored(), dtype)
    assert caught.value.slug == "huggingface-dtype-unknown"
    assert_nothing_is_left(out)


@pytest.mark.parametrize("change", [{"activation": "relu"}, {"attention": "window"}], ids=str)
def test_a_model_with_other_ops_is_not_passed_off_as_a_gpt2(out, change):
    model = GPT2(MODEL.layers, MODEL.heads, C, MODEL.positions, V, **change)
    with pytest.raises(ConfigError) as caught:
        write_huggingface(out, Stored(model=model))
    assert caught.value.slug == "huggingface-has-no-such-op"
    assert_nothing_is_left(out)


def test_an_empty_folder_is_filled_and_a_full_one_refused(out):
    out.mkdir()
    write_huggingface(out, Stored())
    before = {file.name: file.read_bytes() for file in out.iterdir()}
    with pytest.raises(ConfigError) as caught:
        write_huggingface(out, Stored())
    assert caught.value.slug == "huggingface-target-taken"
    assert {file.name: file.read_bytes() for file in out.iterdir()} == before
    with pytest.raises(ConfigError):
        write_huggingface(out / "config.json", Stored())
    assert os.listdir(out.parent) == ["out"]


def test_the_folders_above_are_made(out):
    write_huggingface(out / "a" / "b", Stored())
    assert (out / "a" / "b" / "config.json").is_file()


@pytest.mark.parametrize("call", ["mkdir", "write", "fsync", "rename"])
def test_a_disk_that_fails_leaves_nothing(out, monkeypatch, call):
    def fail(*arguments, **named):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, call, fail)
    with pytest.raises(ResourceError) as caught:
        write_huggingface(out, Stored())
    monkeypatch.undo()
    assert caught.value.slug == "huggingface-not-written"
    assert_nothing_is_left(out)


def test_an_interrupt_leaves_nothing(out):
    class Interrupted(Stored):
        def read_into(self, name, out):
            if name == "fcw.0":
                raise KeyboardInterrupt
            super().read_into(name, out)

    with pytest.raises(KeyboardInterrupt):
        write_huggingface(out, Interrupted())
    assert_nothing_is_left(out)


def test_an_error_of_the_source_is_passed_on_and_leaves_nothing(tmp_path, out):
    file = by_hand.write_folder(tmp_path / "gpt2", FULL) / "model.safetensors"
    with HuggingFaceModel(tmp_path / "gpt2") as source:
        file.write_bytes(file.read_bytes()[:3000])
        with pytest.raises(CheckpointError):
            write_huggingface(out, source)
    assert os.listdir(tmp_path) == ["gpt2"]


def test_an_array_written_as_it_lies_in_memory_is_noticed(out, monkeypatch):
    """The mistake of many writers: the shape is turned around, and the numbers are not."""

    def careless(values, dtype):
        return np.asarray(values.T if values.flags.f_contiguous else values, dtype).copy()

    monkeypatch.setattr(huggingface_writing.np, "ascontiguousarray", careless)
    with pytest.raises(ResourceError, match="read back") as caught:
        write_huggingface(out, Stored())
    monkeypatch.undo()
    assert caught.value.slug == "huggingface-not-written"
    assert "qkvw.0" in caught.value.facts["found"]
    assert_nothing_is_left(out)


def test_a_disk_that_keeps_other_bytes_is_noticed(out, monkeypatch):
    write = huggingface_writing.write_safetensors

    def damage(path, *arguments):
        write(path, *arguments)
        raw = bytearray(path.read_bytes())
        raw[-5] ^= 1
        path.write_bytes(raw)

    monkeypatch.setattr(huggingface_writing, "write_safetensors", damage)
    with pytest.raises(ResourceError, match="read back"):
        write_huggingface(out, Stored())
    assert_nothing_is_left(out)
