"""conf/ and the dataclasses agree, and each preset is what its name says."""

from dataclasses import fields

import pytest
from omegaconf import OmegaConf

from harness.config import command_line
from harness.config.config import (
    RunConfig,
    conf_dir,
    model_of,
    precision_of,
    sequence_length,
    trainer_settings,
)

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
