"""docs/config.md lists every key of the schema, with the value that a run has when nothing is said."""

import re
from pathlib import Path

import pytest
import yaml

from harness.config import command_line
from harness.config.config import config_text
from harness.config.overrides import known_keys

PAGE = Path(__file__).resolve().parents[2] / "docs" / "config.md"
MADE_FROM_THE_CONTRACT = ("ops.", "precision_of.")


@pytest.fixture(scope="module")
def listed():
    table = (
        PAGE.read_text(encoding="utf-8").partition("<!-- keys -->")[2].partition("<!-- end -->")[0]
    )
    rows = re.findall(r"^\| `([^`]+)` \| `([^`]+)` \| (.+) \|$", table, re.MULTILINE)
    return {key: (yaml.safe_load(value), meaning) for key, value, meaning in rows}


def test_every_key_of_the_schema_is_listed_and_no_other(listed):
    known = {k for k in known_keys() if not k.startswith(MADE_FROM_THE_CONTRACT)}
    sections = {key.rpartition(".")[0] for key in known} | {"ops", "precision_of"}
    assert set(listed) == known - sections


def test_the_values_are_those_of_a_run_with_nothing_said(listed):
    (run,) = command_line.check([])
    config = yaml.safe_load(config_text(run))
    for key, (value, _) in listed.items():
        found = config
        for part in key.split("."):
            found = found[part]
        if isinstance(found, float):
            value = float(value)
        assert found == value, key


def test_every_meaning_is_said(listed):
    assert all(len(meaning.split()) >= 2 for _, meaning in listed.values())
