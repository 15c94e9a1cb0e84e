"""A checkpoint gives back what was saved, bit by bit, and refuses what it could not give back."""

import errno
import json
import os
import shutil
from collections import namedtuple

import ml_dtypes
import numpy as np
import pytest

from harness import checkpoint
from harness.errors import CheckpointError, NumericsError, ResourceError

STATE = {
    "data_position": 12345678901234567890,
    "seed": 7,
    "loss_window": [0.1, 3.5e-300],
    "x": None,
}


@pytest.fixture
def tensors(rng):
    return {
        "model": {
            "wte": rng.standard_normal((5, 3)).astype(np.float32),
            "low": rng.standard_normal(7).astype(ml_dtypes.bfloat16),
        },
        "optimizer": {"m": rng.standard_normal((2, 2, 2)), "step": np.array(9, np.int64)},
    }


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def test_what_was_saved_comes_back_bit_by_bit(tmp_path, tensors):
    path = checkpoint.save(tmp_path, 400, tensors, STATE, keep=None)
    assert path == tmp_path / "step-00000400"
    found = checkpoint.load(path)
    assert (found.step, found.state, found.groups) == (400, STATE, ("model", "optimizer"))
    for group, arrays in tensors.items():
        read = found.tensors(group)
        assert set(read) == set(arrays)
        for name, array in arrays.items():
            assert read[name].dtype == array.dtype
            assert read[name].shape == array.shape
            assert read[name].tobytes() == array.tobytes()
            assert read[name].flags.writeable


def test_the_folder_holds_the_three_files_and_no_more(tmp_path, tensors):
    path = checkpoint.save(tmp_path / "a" / "checkpoints", 1, tensors, {}, keep=1)
    assert os.listdir(path.parent) == ["step-00000001"]
    assert set(os.listdir(path)) == {
        "manifest.json",
        "model.safetensors",
        "optimizer.safetensors",
    }
    manifest = json.loads((path / "manifest.json").read_text())
    assert manifest["version"] == 1
    size = (path / "model.safetensors").stat().st_size
    assert manifest["files"]["model.safetensors"]["bytes"] == size


def test_the_newest_checkpoint_is_the_one_of_the_highest_step(tmp_path, tensors):
    for step in (99_999_999, 300, 100_000_000, 200):
        checkpoint.save(tmp_path, step, tensors, {"at": step}, keep=None)
    found, ignored = checkpoint.newest(tmp_path)
    assert found.step == found.state["at"] == 100_000_000
    assert ignored == []


def test_a_folder_that_does_not_exist_has_no_newest(tmp_path):
    assert checkpoint.newest(tmp_path / "none") == (None, [])


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.float16, ml_dtypes.bfloat16])
def test_a_value_that_is_not_finite_is_refused_with_its_place(tmp_path, tensors, dtype, value):
    checkpoint.save(tmp_path, 1, tensors, {}, keep=None)
    tensors["model"]["bad"] = np.ones((4, 6), dtype).T
    tensors["model"]["bad"][5, 2] = value
    with pytest.raises(NumericsError) as caught:
        checkpoint.save(tmp_path, 2, tensors, {}, keep=1)
    assert "model/bad[5, 2]" in caught.value.facts["where"]
    assert "step-00000001" in caught.value.facts["effect"]
    assert os.listdir(tmp_path) == ["step-00000001"]


def test_a_value_is_found_beyond_the_first_million():
    from harness.files.nonfinite import first_nonfinite

    array = np.zeros((3, 1 << 20), np.float32)
    assert first_nonfinite(array) is None
    array[2, 17] = np.inf
    assert first_nonfinite(array) == (2, 17)


@pytest.mark.parametrize(
    "state", [{"a": (1, 2)}, {1: 2}, {"a": np.float32(1)}, {"a": {"b": object()}}]
)
def test_state_that_json_would_change_is_refused(tmp_path, tensors, state):
    with pytest.raises(CheckpointError) as caught:
        checkpoint.save(tmp_path, 1, tensors, state, keep=None)
    assert caught.value.slug == "checkpoint-state-not-json"
    assert os.listdir(tmp_path) == []


def test_state_that_is_not_finite_is_refused_with_its_place(tmp_path, tensors):
    with pytest.raises(NumericsError, match="not finite") as caught:
        checkpoint.save(tmp_path, 1, tensors, {"w": [0.0, float("inf")]}, keep=None)
    assert caught.value.facts["found"] == "state.w.1 is inf"


def test_an_array_without_a_name_in_the_format_is_refused(tmp_path):
    with pytest.raises(CheckpointError) as caught:
        checkpoint.save(tmp_path, 1, {"model": {"z": np.zeros(2, complex)}}, {}, keep=None)
    assert caught.value.slug == "checkpoint-dtype-unknown"


def test_a_full_disk_is_noticed_before_anything_is_written(tmp_path, tensors, monkeypatch):
    checkpoint.save(tmp_path, 1, tensors, {}, keep=None)
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(10**9, 10**9, 1000))
    monkeypatch.setattr(os, "mkdir", lambda *a: pytest.fail("wrote"))
    with pytest.raises(ResourceError) as caught:
        checkpoint.save(tmp_path, 2, tensors, {}, keep=1)
    assert caught.value.slug == "checkpoint-disk-full"
    assert caught.value.facts["found"] == "1,000"
    assert "step-00000001" in caught.value.facts["effect"]


def test_a_missing_checkpoint_names_those_that_exist(tmp_path, tensors):
    checkpoint.save(tmp_path, 3, tensors, {}, keep=None)
    with pytest.raises(CheckpointError) as caught:
        checkpoint.load(tmp_path / "step-00000004")
    assert caught.value.slug == "checkpoint-missing"
    assert "step-00000003" in caught.value.facts["do"]


def test_a_missing_group_names_those_that_exist(tmp_path, tensors):
    found = checkpoint.load(checkpoint.save(tmp_path, 3, tensors, {}, keep=None))
    with pytest.raises(CheckpointError) as caught:
        found.tensors("ema")
    assert caught.value.facts["found"] == "model, optimizer"


def test_a_damaged_file_is_told_in_full(tmp_path, tensors):
    checkpoint.save(tmp_path, 300, tensors, {}, keep=None)
    path = checkpoint.save(tmp_path, 400, tensors, {}, keep=None)
    file = path / "model.safetensors"
    size = file.stat().st_size
    os.truncate(file, size - 5)
    with pytest.raises(CheckpointError) as caught:
        checkpoint.load(path)
    sha256 = json.loads((path / "manifest.json").read_text())["files"][file.name]["sha256"]
    assert caught.value.render() == (
        "error[checkpoint-damaged] checkpoint is damaged: model.safetensors\n"
        f"  where     {file}\n"
        f"  expected  {size:,} bytes, sha256 {sha256}\n"
        f"  found     {size - 5:,} bytes\n"
        "  effect    not loaded\n"
        "  do        delete the folder; the one before it is step-00000300"
    )
    assert caught.value.exit_code == 4


def test_a_file_that_changes_after_it_was_verified_is_not_returned(tmp_path, tensors):
    found = checkpoint.load(checkpoint.save(tmp_path, 3, tensors, {}, keep=None))
    file = found.path / "model.safetensors"
    raw = bytearray(file.read_bytes())
    raw[-1] ^= 1
    file.write_bytes(raw)
    with pytest.raises(CheckpointError, match="damaged"):
        found.tensors("model")


def test_a_checkpoint_under_another_name_loads(tmp_path, tensors):
    path = checkpoint.save(tmp_path, 3, tensors, {}, keep=None)
    assert checkpoint.load(path.rename(tmp_path / "best")).step == 3


def test_a_checkpoint_that_claims_another_step_is_refused(tmp_path, tensors):
    path = checkpoint.save(tmp_path, 3, tensors, {}, keep=None)
    with pytest.raises(CheckpointError, match="damaged"):
        checkpoint.load(path.rename(tmp_path / "step-00000999"))


def test_an_unwritable_folder_is_the_users_to_change(tmp_path, tensors, monkeypatch):
    def refuse(*arguments):
        raise OSError(errno.EACCES, "Permission denied", "stage")

    monkeypatch.setattr(os, "mkdir", refuse)
    with pytest.raises(CheckpointError) as caught:
        checkpoint.save(tmp_path, 1, tensors, {}, keep=None)
    assert caught.value.slug == "checkpoint-folder-unusable"
    assert "EACCES" in caught.value.facts["found"]


def test_a_file_in_the_place_of_the_folder_is_said(tmp_path, tensors):
    (tmp_path / "checkpoints").write_text("")
    with pytest.raises(CheckpointError):
        checkpoint.save(tmp_path / "checkpoints", 1, tensors, {}, keep=None)
