"""A folder appears whole or not at all, whichever call fails."""

import os

import pytest

from harness.files.staging import recover, stage_beside, whole_folder


@pytest.fixture
def path(tmp_path):
    return tmp_path / "above" / "folder.v1"


def write(path, text):
    with whole_folder(path) as stage:
        (stage / "file").write_text(text)


def test_it_has_its_name_at_the_end_and_nothing_lies_beside_it(path):
    with whole_folder(path) as stage:
        (stage / "file").write_text("new")
        assert not path.exists()
    assert (path / "file").read_text() == "new"
    assert os.listdir(path.parent) == ["folder.v1"]


def test_it_takes_the_place_of_an_empty_folder_and_of_a_full_one(path):
    path.mkdir(parents=True)
    for text in ("first", "second"):
        write(path, text)
        assert (path / "file").read_text() == text
        assert os.listdir(path.parent) == ["folder.v1"]


@pytest.mark.parametrize(
    ("call", "failing", "replaces"),
    [
        ("mkdir", 2, False),  # the first is of the folder above, which is there
        ("mkdir", 2, True),
        ("fsync", 1, False),
        ("fsync", 1, True),
        ("fsync", 2, False),  # the new name is not on the disk: it is taken back
        ("fsync", 2, True),
        ("rename", 1, False),
        ("rename", 1, True),
        ("rename", 2, True),
    ],
)
def test_a_call_that_fails_leaves_what_was_there(path, monkeypatch, call, failing, replaces):
    path.parent.mkdir()
    if replaces:
        write(path, "old")
    before = sorted(path.parent.rglob("*"))
    real, calls = getattr(os, call), []

    def fail(*arguments, **settings):
        calls.append(arguments)
        if len(calls) == failing:
            raise OSError(28, "No space left on device")
        return real(*arguments, **settings)

    with monkeypatch.context() as patch:
        patch.setattr(os, call, fail)
        with pytest.raises(OSError, match="No space left"):
            write(path, "new")
    assert sorted(path.parent.rglob("*")) == before
    if replaces:
        assert (path / "file").read_text() == "old"


@pytest.fixture
def left(path, monkeypatch):
    """What a machine leaves that stops between the two renames of a replacement."""

    class Stop(BaseException):
        pass

    def stop(stage, path):
        real(path, stage.with_suffix(".old"))
        raise Stop

    real = os.rename
    write(path, "old")
    with monkeypatch.context() as patch:
        patch.setattr("harness.files.staging.put_in_place", stop)
        with pytest.raises(Stop):
            write(path, "new")
    assert not path.exists() and len(os.listdir(path.parent)) == 1
    return path


def test_a_folder_that_was_put_aside_is_given_its_name_again(left):
    recover(left)
    assert (left / "file").read_text() == "old"
    assert os.listdir(left.parent) == ["folder.v1"]


def test_writing_again_leaves_no_folder_aside(left):
    write(left, "newer")
    assert (left / "file").read_text() == "newer"
    assert os.listdir(left.parent) == ["folder.v1"]


def test_a_writing_that_fails_again_leaves_the_old_folder_under_its_name(left):
    with pytest.raises(KeyboardInterrupt), whole_folder(left):
        raise KeyboardInterrupt
    assert (left / "file").read_text() == "old"


def test_nothing_is_recovered_over_a_folder_or_from_one_of_another_name(left):
    other = left.with_name("folder")
    recover(other)
    assert not other.exists()
    left.mkdir()
    recover(left)
    assert os.listdir(left) == []


def test_an_interrupt_leaves_nothing(path):
    with pytest.raises(KeyboardInterrupt), whole_folder(path):
        raise KeyboardInterrupt
    assert os.listdir(path.parent) == []


def test_a_stage_that_is_not_put_in_its_place_is_gone(path):
    with stage_beside(path) as stage:
        (stage / "file").write_text("new")
    assert os.listdir(path.parent) == []
