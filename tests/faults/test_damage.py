"""A checkpoint with any file deleted, shortened, lengthened or flipped is ignored, with the reason."""

import os
import shutil

import numpy as np
import pytest

from harness import checkpoint

FILES = ("model.safetensors", "optimizer.safetensors", "manifest.json")


def flip(position):
    def change(file):
        raw = bytearray(file.read_bytes())
        raw[int(position * (len(raw) - 1))] ^= 0x10
        file.write_bytes(raw)

    return change


def replace_by_folder(file):
    file.unlink()
    file.mkdir()


def replace_by_pipe(file):
    file.unlink()
    os.mkfifo(file)


DAMAGES = {
    "deleted": lambda file: file.unlink(),
    "emptied": lambda file: os.truncate(file, 0),
    "one byte short": lambda file: os.truncate(file, file.stat().st_size - 1),
    "one byte long": lambda file: file.write_bytes(file.read_bytes() + b"\n"),
    "all zeros": lambda file: file.write_bytes(bytes(file.stat().st_size)),
    "flipped at the beginning": flip(0),
    "flipped in the middle": flip(0.5),
    "flipped at the end": flip(1),
    "a folder": replace_by_folder,
    "a pipe": replace_by_pipe,
    "a link to nothing": lambda file: (file.unlink(), file.symlink_to("nowhere")),
    "a link to itself": lambda file: (file.unlink(), file.symlink_to(file)),
}


@pytest.fixture(scope="module")
def pristine(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pristine")
    for step in (300, 400):
        weights = {"w": np.full((20, 30), step, np.float32)}
        moments = {"m": np.full(100, step / 7)}
        groups = {"model": weights, "optimizer": moments}
        checkpoint.save(folder, step, groups, {"position": step}, keep=None)
    return folder


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("name", FILES)
def test_a_damaged_checkpoint_is_ignored_with_a_reason(tmp_path, pristine, name, damage):
    folder = shutil.copytree(pristine, tmp_path / "checkpoints")
    DAMAGES[damage](folder / "step-00000400" / name)
    found, ignored = checkpoint.newest(folder)
    assert found.step == 300
    assert found.tensors("model")["w"][0, 0] == 300
    ((path, reason),) = ignored
    assert path.name == "step-00000400"
    assert name in reason
    assert "found" in reason


def test_every_flipped_byte_of_the_tensors_is_found(tmp_path, pristine):
    folder = shutil.copytree(pristine, tmp_path / "checkpoints")
    file = folder / "step-00000400" / "optimizer.safetensors"
    good = file.read_bytes()
    for index in range(len(good)):
        file.write_bytes(good[:index] + bytes([good[index] ^ 1]) + good[index + 1 :])
        assert checkpoint.newest(folder)[0].step == 300, index


def test_files_of_two_checkpoints_do_not_mix(tmp_path, pristine):
    folder = shutil.copytree(pristine, tmp_path / "checkpoints")
    for name in FILES[:2]:
        shutil.copy(folder / "step-00000300" / name, folder / "step-00000400" / name)
    assert checkpoint.newest(folder)[0].step == 300


def test_with_all_damaged_there_is_none_and_each_has_its_reason(tmp_path, pristine):
    folder = shutil.copytree(pristine, tmp_path / "checkpoints")
    for step in (300, 400):
        (folder / f"step-00000{step}" / "model.safetensors").unlink()
    found, ignored = checkpoint.newest(folder)
    assert found is None
    assert len(ignored) == 2
