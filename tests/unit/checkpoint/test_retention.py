"""Old checkpoints go, the last complete one never does, and interrupted work is put in order."""

import os
import shutil

import numpy as np
import pytest

from harness import checkpoint


def save(folder, step, keep=None, value=1.0):
    tensors = {"model": {"w": np.full(3, value, np.float32)}}
    return checkpoint.save(folder, step, tensors, {"value": value}, keep)


def names(folder):
    return sorted(os.listdir(folder))


def test_the_newest_stay_and_the_others_go(tmp_path):
    for step in range(1, 6):
        save(tmp_path, step, keep=2)
    assert names(tmp_path) == ["step-00000004", "step-00000005"]


def test_none_keeps_all(tmp_path):
    for step in range(1, 6):
        save(tmp_path, step)
    assert len(names(tmp_path)) == 5


def test_damaged_checkpoints_do_not_count_among_those_kept(tmp_path):
    for step in (1, 2, 3):
        save(tmp_path, step)
    for step in (2, 3):
        (tmp_path / f"step-0000000{step}" / "manifest.json").unlink()
    save(tmp_path, 4, keep=2)
    assert names(tmp_path) == ["step-00000001", "step-00000004"]


def test_the_checkpoint_just_saved_stays_even_below_later_ones(tmp_path):
    for step in (500, 600):
        shutil.rmtree(save(tmp_path, step) / "model.safetensors", ignore_errors=True)
        (tmp_path / f"step-00000{step}" / "model.safetensors").unlink()
    save(tmp_path, 300, keep=1)
    found, ignored = checkpoint.newest(tmp_path)
    assert found.step == 300
    assert [entry.path.name for entry in ignored] == ["step-00000600", "step-00000500"]
    assert "model.safetensors" in ignored[0].reason


def test_a_checkpoint_of_the_same_step_is_replaced(tmp_path):
    save(tmp_path, 7, value=1.0)
    path = save(tmp_path, 7, value=2.0)
    assert checkpoint.load(path).tensors("model")["w"][0] == 2.0
    assert names(tmp_path) == ["step-00000007"]


def test_a_damaged_checkpoint_of_the_same_step_is_replaced(tmp_path):
    (save(tmp_path, 7) / "manifest.json").write_text("{}")
    assert checkpoint.load(save(tmp_path, 7, value=2.0)).state == {"value": 2.0}


def test_a_replacement_cut_short_leaves_the_one_before_it(tmp_path):
    save(tmp_path, 6)
    save(tmp_path, 7).rename(tmp_path / ".step-00000007.replaced")
    assert checkpoint.newest(tmp_path)[0].step == 7
    save(tmp_path, 8, keep=2)
    assert names(tmp_path) == ["step-00000007", "step-00000008"]


def test_what_a_crash_left_is_removed_by_the_next_save(tmp_path):
    (tmp_path / ".step-00000003.partial").mkdir()
    (tmp_path / ".step-00000003.partial" / "model.safetensors").write_text("half")
    (tmp_path / ".step-00000001.ab12.deleted").mkdir()
    assert checkpoint.newest(tmp_path) == (None, [])
    save(tmp_path, 4)
    assert names(tmp_path) == ["step-00000004"]


def test_a_removal_that_fails_is_told_and_does_not_fail_the_save(tmp_path, monkeypatch):
    save(tmp_path, 1)

    def refuse(path, **settings):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(shutil, "rmtree", refuse)
    with pytest.warns(RuntimeWarning, match="not removed"):
        save(tmp_path, 2, keep=1)
    assert checkpoint.newest(tmp_path)[0].step == 2


def test_a_future_that_was_given_up_is_not_resumed_from(tmp_path):
    for step in (100, 200, 300):
        save(tmp_path, step)
    moved = checkpoint.set_aside_after(tmp_path, 100)
    assert [path.name[:24] for path in moved] == [
        "superseded-step-00000300",
        "superseded-step-00000200",
    ]
    assert checkpoint.newest(tmp_path)[0].step == 100
    assert checkpoint.load(moved[0]).step == 300


def test_foreign_names_are_left_alone(tmp_path):
    for name in ("notes.txt", "step-1", "step-00000001x", ".hidden", "best"):
        (tmp_path / name).mkdir()
    save(tmp_path, 1, keep=1)
    save(tmp_path, 2, keep=1)
    assert len(names(tmp_path)) == 6
    assert [path.name for path in checkpoint.listed(tmp_path)] == ["step-00000002"]
