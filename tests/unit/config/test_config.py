"""conf/ and the dataclasses agree, and each preset is what its name says."""

from dataclasses import MISSING, fields, is_dataclass
from operator import attrgetter

import pytest
from omegaconf import OmegaConf

from harness.config import command_line
from harness.config.application import TRAIN
from harness.config.config import (
    RunConfig,
    conf_dir,
    model_of,
    precision_of,
    sequence_length,
    trainer_settings,
)
from harness.generation.settings import GENERATE

FILES = sorted(path.relative_to(conf_dir()) for path in conf_dir().glob("*/*.yaml"))


@pytest.mark.parametrize("file", FILES, ids=str)
def test_every_file_of_conf_composes_into_a_run(file):
    changes = [f"{file.parent}={file.stem}"]
    assert isinstance(command_line.compose(changes), RunConfig)


@pytest.mark.parametrize("file", [*FILES, "config.yaml"], ids=str)
def test_every_file_of_conf_opens_with_what_it_is_for(file):
    first, second, *_ = (conf_dir() / file).read_text().splitlines()
    sentence = second if first.startswith("# @package") else first
    assert sentence.startswith("# ") and sentence.rstrip().endswith((".", "?", ":"))


@pytest.mark.parametrize("preset", sorted(path.stem for path in conf_dir().glob("model/*.yaml")))
def test_a_run_is_called_by_its_model(preset):
    assert command_line.compose([f"model={preset}"]).name == preset


def test_the_main_file_names_every_setting_of_a_run():
    written = set(OmegaConf.load(conf_dir() / "config.yaml"))
    groups = {"model", "data", "adapter", "optimizer", "schedule", "ops"}
    assert {f.name for f in fields(RunConfig)} - groups - written <= {"wrappers", "precision_of"}


def defaults_of(schema, prefix=""):
    """Key with dots -> the default of its field, for each field that has one."""
    found = {}
    for setting in fields(schema):
        key = f"{prefix}{setting.name}"
        if is_dataclass(setting.type):
            found |= defaults_of(setting.type, f"{key}.")
        elif setting.default is not MISSING:
            found[key] = setting.default
        elif setting.default_factory is not MISSING:
            found[key] = setting.default_factory()
    return found


def stated_in(section, prefix=""):
    """Every key that a file of conf/ gives a value, with dots."""
    found = set()
    for key, value in section.items():
        inner = isinstance(value, dict)
        found |= stated_in(value, f"{prefix}{key}.") if inner else {f"{prefix}{key}"}
    return found


def read(file):
    return OmegaConf.to_container(OmegaConf.load(conf_dir() / file))


@pytest.mark.parametrize("application", [TRAIN, GENERATE], ids=lambda a: a.primary)
def test_a_value_of_the_main_file_has_no_second_place(application):
    stated = stated_in(read(f"{application.primary}.yaml"))
    assert not stated & set(defaults_of(application.schema))


@pytest.mark.parametrize("group", ["model", "data", "adapter", "optimizer", "schedule"])
def test_what_every_file_of_a_group_states_has_no_second_place(group):
    files = [read(file) for file in FILES if file.parent.name == group]
    in_each = set.intersection(*(stated_in(file, f"{group}.") for file in files))
    assert in_each and not in_each & set(defaults_of(TRAIN.schema))


@pytest.mark.parametrize("typed", [[], ["adapter=lora"]], ids=["nothing", "adapter=lora"])
def test_a_default_that_some_files_of_a_group_repeat_is_the_same_there(typed):
    run, defaults = command_line.compose(typed), defaults_of(TRAIN.schema)
    del (
        defaults["ops"],
        defaults["precision_of"],
    )  # of every op: null, unless conf/ops says otherwise
    assert {key: attrgetter(key)(run) for key in defaults} == defaults


def test_a_sequence_is_as_long_as_the_model_allows():
    assert sequence_length(command_line.compose(["model=micro"])) == 16
    assert sequence_length(command_line.compose(["model=micro", "sequence_length=5"])) == 5


def test_the_vocabulary_is_the_larger_of_models_and_tokenizers():
    run = command_line.compose(["model=micro"])
    assert model_of(run, 65).vocab_size == 100
    assert model_of(run, 256).vocab_size == 256


def test_ops_and_precisions_reach_the_trainer():
    run = command_line.compose(["ops.attention=python", "precision_of.layernorm=bf16"])
    settings = trainer_settings(run, model_of(run, 256))
    chosen = {op: backend for op, backend in settings.ops.items() if backend is not None}
    assert chosen.pop("matmul_cross_entropy") == "expand"  # conf/ops/default.yaml
    assert chosen == {"every_op": "numpy", "attention": "python"}
    assert precision_of(run).of("layernorm") == "bf16" and precision_of(run).of("matmul") == "fp32"
