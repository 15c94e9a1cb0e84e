"""Whichever call of a save fails, the checkpoints before it still load and none is half-written."""

import errno
import os
import warnings

import numpy as np
import pytest

from harness import checkpoint
from harness.errors import CheckpointError, ResourceError

CALLS = ("open", "write", "fsync", "mkdir", "rename", "unlink", "rmdir")
ERRORS = [errno.ENOSPC, errno.EIO, errno.EROFS, errno.EDQUOT]


def tensors(value):
    return {
        "model": {"w": np.full((3, 4), value, np.float32)},
        "optimizer": {"m": np.full(5, value), "v": np.full(5, value)},
    }


def save(folder, step, value, keep=None):
    return checkpoint.save(folder, step, tensors(value), {"value": value}, keep)


def values(found):
    """The one number that a checkpoint was filled with."""
    everything = [array for group in found.groups for array in found.tensors(group).values()]
    (value,) = {float(x) for array in everything for x in array.flat} | {found.state["value"]}
    return value


class Faults:
    """Counts the calls of os by name and makes those from the number on fail, once or for ever."""

    def __init__(self, monkeypatch, number, error, for_ever=False, half=False):
        self.seen = 0
        self.failed = []
        self.number, self.error, self.for_ever, self.half = number, error, for_ever, half
        for name in CALLS:
            monkeypatch.setattr(os, name, self.wrap(name, getattr(os, name)))

    def wrap(self, name, call):
        def counted(*arguments, **settings):
            # Reading works on; what a save opens for writing, or as a folder, counts.
            if name == "open" and arguments[1] & os.O_NONBLOCK:
                return call(*arguments, **settings)
            index, self.seen = self.seen, self.seen + 1
            if index == self.number or (self.for_ever and index > self.number):
                self.failed.append(name)
                if self.half and name == "write":
                    call(arguments[0], arguments[1][: len(arguments[1]) // 2])
                raise OSError(self.error, os.strerror(self.error), "disk")
            return call(*arguments, **settings)

        return counted


def calls_of_a_save(folder, **settings):
    with pytest.MonkeyPatch.context() as patch:
        faults = Faults(patch, -1, 0)
        save(folder, **settings)
    return faults.seen


@pytest.mark.parametrize("for_ever", [False, True], ids=["once", "for ever"])
@pytest.mark.parametrize("error", ERRORS, ids=errno.errorcode.get)
@pytest.mark.parametrize("step", [3, 2], ids=["new", "replacing"])
def test_whichever_call_fails_the_last_good_checkpoint_stays(
    tmp_path, monkeypatch, step, error, for_ever
):
    # Durability itself is under test in test_kill; real fsyncs would only make this slow.
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)

    def prepare(folder):
        save(folder, 1, 1.0)
        save(folder, 2, 2.0)
        return folder

    count = calls_of_a_save(prepare(tmp_path / "count"), step=step, value=9.0, keep=2)
    assert count > 20
    outcomes = set()
    for number in range(count):
        folder = prepare(tmp_path / str(number))
        with monkeypatch.context() as patch:
            faults = Faults(patch, number, error, for_ever, half=True)
            try:
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore", RuntimeWarning)  # an old one was not removed
                    save(folder, step, 9.0, keep=2)
                outcome = "saved"
            except (ResourceError, CheckpointError) as failure:
                outcome = failure.slug
                assert failure.facts["do"]
                assert errno.errorcode[error] in failure.facts["found"]
        assert faults.failed, "the call that should fail was not made"
        found, ignored = checkpoint.newest(folder)
        assert ignored == [], (number, faults.failed, ignored)
        expected = {9.0} if outcome == "saved" else {2.0, 9.0}
        assert values(found) in expected, (number, faults.failed)
        assert found.step in (2, step)
        # The next save finds its way, whatever was left lying about.
        save(folder, 4, 4.0, keep=1)
        assert values(checkpoint.newest(folder)[0]) == 4.0
        assert os.listdir(folder) == ["step-00000004"]
        outcomes.add(outcome)
    full = error in (errno.ENOSPC, errno.EDQUOT)
    assert outcomes == {"saved", "checkpoint-disk-full" if full else "checkpoint-disk-failed"}


def test_a_write_that_takes_a_part_is_continued(tmp_path, monkeypatch):
    write = os.write
    monkeypatch.setattr(os, "write", lambda descriptor, data: write(descriptor, data[:7]))
    assert values(checkpoint.load(save(tmp_path, 1, 1.0))) == 1.0


def test_a_failed_save_leaves_no_stage_behind(tmp_path, monkeypatch):
    save(tmp_path, 1, 1.0)
    with monkeypatch.context() as patch:
        Faults(patch, 8, errno.ENOSPC)
        with pytest.raises(ResourceError):
            save(tmp_path, 2, 2.0)
    assert os.listdir(tmp_path) == ["step-00000001"]


def test_a_replacement_that_fails_gives_the_name_back(tmp_path, monkeypatch):
    save(tmp_path, 1, 1.0)
    rename = os.rename

    def fail_for_the_stage(source, target):
        if str(source).endswith(".partial"):
            raise OSError(errno.EIO, os.strerror(errno.EIO), str(source))
        rename(source, target)

    monkeypatch.setattr(os, "rename", fail_for_the_stage)
    with pytest.raises(ResourceError):
        save(tmp_path, 1, 2.0)
    assert os.listdir(tmp_path) == ["step-00000001"]
    assert values(checkpoint.newest(tmp_path)[0]) == 1.0


def test_an_interrupt_in_a_save_leaves_no_stage_behind(tmp_path, monkeypatch):
    def interrupt(descriptor):
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", interrupt)
    with pytest.raises(KeyboardInterrupt):
        save(tmp_path, 2, 2.0)
    assert os.listdir(tmp_path) == []


def test_everything_is_on_the_disk_before_the_name_is_given(tmp_path, monkeypatch):
    """A kill can't show this, because the system's cache survives it; a power cut would."""
    save(tmp_path, 1, 1.0)
    happened = []
    fsync, rename = os.fsync, os.rename

    def log_fsync(descriptor):
        happened.append(os.fstat(descriptor).st_ino)
        fsync(descriptor)

    def log_rename(source, target):
        happened.append("rename")
        rename(source, target)

    monkeypatch.setattr(os, "fsync", log_fsync)
    monkeypatch.setattr(os, "rename", log_rename)
    path = save(tmp_path, 2, 2.0)
    files = [path / "model.safetensors", path / "optimizer.safetensors", path / "manifest.json"]
    inodes = [file.stat().st_ino for file in files]
    folder, parent = path.stat().st_ino, tmp_path.stat().st_ino
    assert happened == [*inodes, folder, "rename", parent]


def test_nothing_is_removed_before_the_new_one_is_safe(tmp_path, monkeypatch):
    save(tmp_path, 1, 1.0)
    happened = []
    for name in ("fsync", "unlink", "rmdir"):
        call = getattr(os, name)

        def log(*arguments, _name=name, _call=call, **settings):
            happened.append(_name)
            return _call(*arguments, **settings)

        monkeypatch.setattr(os, name, log)
    save(tmp_path, 2, 2.0, keep=1)
    last_fsync = len(happened) - 1 - happened[::-1].index("fsync")
    assert set(happened[:last_fsync]) == {"fsync"}
    assert "unlink" in happened[last_fsync:]
