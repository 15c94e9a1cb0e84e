"""The harness's own stored model: what is written comes back, and damage is named."""

import dataclasses
import json
import time
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest

from harness.errors import CheckpointError, HarnessError, NumericsError
from harness.interchange.initial_model import InitialModel
from harness.interchange.model_folder import ModelFolder, write_model_folder
from harness.interchange.opening import open_model
from harness.models.gpt2 import GPT2
from harness.models.kinds import tensor_shapes
from harness.tokenizers import get

MODEL = GPT2(layers=2, heads=2, channels=8, positions=4, vocab_size=130)


class Changed(InitialModel):
    """Initial weights of which one tensor is something else."""

    def __init__(self, name, change, **options):
        super().__init__(MODEL, **options)
        self.name, self.change = name, change

    def read_into(self, name, out):
        super().read_into(name, out)
        if name == self.name:
            self.change(out)


def values_of(source, name):
    out = np.full(tensor_shapes(source.model)[name], 7, np.float32)
    source.read_into(name, out)
    return out


@pytest.fixture
def folder(tmp_path):
    write_model_folder(tmp_path / "model", InitialModel(MODEL, seed=3, tokenizer=get("bytes")))
    return tmp_path / "model"


def test_what_was_written_comes_back(folder):
    with open_model(folder) as stored:
        assert isinstance(stored, ModelFolder)
        assert stored.model == MODEL
        assert stored.tokenizer.sha256 == get("bytes").sha256
        for name in tensor_shapes(MODEL):
            expected = values_of(InitialModel(MODEL, seed=3), name)
            assert values_of(stored, name).tobytes() == expected.tobytes()


def test_the_safetensors_package_reads_the_same_numbers(folder):
    from safetensors.numpy import load_file

    found = load_file(folder / "model.safetensors")
    assert sorted(found) == sorted(tensor_shapes(MODEL))
    for name, values in found.items():
        assert np.array_equal(values, values_of(InitialModel(MODEL, seed=3), name))


def test_a_bfloat16_model_stays_one(tmp_path):
    source = InitialModel(MODEL)
    source.dtype = np.dtype(ml_dtypes.bfloat16)
    write_model_folder(tmp_path / "model", source)
    stored = ModelFolder(tmp_path / "model")
    expected = values_of(InitialModel(MODEL), "qkvw.1").astype(ml_dtypes.bfloat16)
    assert stored.dtype == ml_dtypes.bfloat16
    assert np.array_equal(values_of(stored, "qkvw.1"), expected.astype(np.float32))
    stored.close()


@pytest.mark.parametrize("name", ["model.json", "model.safetensors"])
@pytest.mark.parametrize("damage", ["cut", "grown", "flipped", "gone"])
def test_every_damage_is_noticed(folder, name, damage):
    path = folder / name
    content = path.read_bytes()
    middle = len(content) - 40
    changed = {
        "cut": content[:-2],
        "grown": content + b"x",
        "flipped": content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :],
    }
    path.unlink() if damage == "gone" else path.write_bytes(changed[damage])
    with pytest.raises(CheckpointError), open_model(folder) as stored:
        assert isinstance(stored, ModelFolder)


@pytest.mark.parametrize(
    "key, value",
    [("version", 2), ("format", "other"), ("model", {"layers": 1}), ("tokenizer", {"name": "x"})],
)
def test_a_description_of_something_else_is_refused(folder, key, value):
    path = folder / "model.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {key: value}))
    with pytest.raises(CheckpointError):
        ModelFolder(folder)


def test_sizes_that_do_not_fit_the_tensors_are_refused_before_they_are_read(folder):
    path = folder / "model.json"
    content = json.loads(path.read_text())
    content["model"]["layers"] = 3
    path.write_text(json.dumps(content))
    with pytest.raises(CheckpointError, match="damaged"):
        ModelFolder(folder)


def test_a_promise_of_very_many_layers_is_refused_at_once(folder):
    path = folder / "model.json"
    content = json.loads(path.read_text())
    content["model"]["layers"] = 2**31 - 1
    path.write_text(json.dumps(content))
    started = time.perf_counter()
    with pytest.raises(CheckpointError, match="damaged"):
        ModelFolder(folder)
    assert time.perf_counter() - started < 1


def test_the_ops_in_the_models_places_are_kept(tmp_path):
    model = dataclasses.replace(MODEL, activation="relu", attention="window")
    write_model_folder(tmp_path / "model", InitialModel(MODEL))
    content = json.loads((tmp_path / "model" / "model.json").read_text())
    content["model"] |= {"activation": "relu", "attention": "window"}
    (tmp_path / "model" / "model.json").write_text(json.dumps(content))
    with open_model(tmp_path / "model") as stored:
        assert stored.model == model
        write_model_folder(tmp_path / "again", stored)
    with open_model(tmp_path / "again") as again:
        assert again.model == model


def test_a_value_that_is_not_finite_is_not_loaded(tmp_path):
    def spoil(out):
        out[1, 2] = np.nan

    write_model_folder(tmp_path / "model", Changed("fcw.1", spoil))
    with pytest.raises(NumericsError, match=r"fcw\.1"), open_model(tmp_path / "model") as stored:
        values_of(stored, "fcw.1")


def test_padding_is_zero_whatever_was_stored(tmp_path):
    def spoil(out):
        out[MODEL.vocab_size :] = 5

    write_model_folder(tmp_path / "model", Changed("wte", spoil))
    with open_model(tmp_path / "model") as stored:
        assert not values_of(stored, "wte")[MODEL.vocab_size :].any()


def test_a_source_that_fails_midway_leaves_nothing(tmp_path):
    def fail(out):
        raise OSError("the disk of the source is gone")

    with pytest.raises(HarnessError, match="can't be written"):
        write_model_folder(tmp_path / "model", Changed("lnfb", fail))
    assert list(tmp_path.iterdir()) == []


def test_a_folder_with_something_in_it_is_left_alone(tmp_path):
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "thesis.txt").write_text("years of work")
    with pytest.raises(CheckpointError, match="already"):
        write_model_folder(tmp_path / "model", InitialModel(MODEL))
    assert [path.name for path in (tmp_path / "model").iterdir()] == ["thesis.txt"]


@pytest.mark.parametrize("make", ["nothing", "empty", "text"])
def test_what_is_no_model_is_said_to_be_none(tmp_path, make):
    path = tmp_path / "there"
    if make == "empty":
        path.mkdir()
    elif make == "text":
        path.write_text("a poem")
    with pytest.raises(CheckpointError), open_model(Path(path)):
        pass
