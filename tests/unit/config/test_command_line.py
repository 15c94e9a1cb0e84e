"""Flags and settings: told apart, composed, and refused before Hydra acts."""

import pytest

from harness.config import command_line
from harness.errors import ConfigError


def test_flags_and_settings_may_stand_anywhere():
    arguments = ["steps=1", "-m", "seed=1,2", "name=a"]
    assert command_line.split(arguments) == (["-m"], ["steps=1", "seed=1,2", "name=a"])


@pytest.mark.parametrize(
    ("arguments", "flags"),
    [
        (["--cfg", "job"], ["--cfg=job"]),
        (["-c", "all"], ["--cfg=all"]),
        (["--cfg=hydra"], ["--cfg=hydra"]),
        (["--info"], ["--info=all"]),
        (["--info", "steps=1"], ["--info=all"]),
        (["-i", "defaults"], ["--info=defaults"]),
        (["--cfg", "job", "--resolve"], ["--cfg=job", "--resolve"]),
    ],
)
def test_a_flag_keeps_its_value(arguments, flags):
    assert command_line.split(arguments)[0] == flags


@pytest.mark.parametrize(
    "arguments",
    [["--cfg"], ["--cfg", "jobs"], ["-m", "--cfg", "job"], ["--resolve"], ["-x"], ["-cn", "x"]],
)
def test_flags_that_mean_nothing_are_refused(arguments):
    with pytest.raises(ConfigError):
        command_line.split(arguments)


def test_the_later_of_two_values_counts():
    assert command_line.compose(["steps=1", "steps=2"]).steps == 2


def test_a_setting_may_repeat_another():
    assert command_line.compose(["backend=python", "name=${backend}"]).name == "python"


@pytest.mark.parametrize("key", ["steps", "optimizer.lr", "sample.temperature", "clip_norm"])
@pytest.mark.parametrize("value", ["nan", "inf", "-inf"])
def test_every_number_is_finite(key, value):
    with pytest.raises(ConfigError):
        command_line.compose([f"{key}={value}"])


def test_what_a_caller_does_to_a_run_does_not_reach_the_next_that_asks_for_it():
    (first,) = command_line.check(["wrappers=[./one.py]"])
    first.wrappers.append("another")
    (second,) = command_line.check(["wrappers=[./one.py]"])
    assert second.wrappers == ["./one.py"]
