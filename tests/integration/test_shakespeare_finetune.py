"""experiment=shakespeare_finetune from llm.c's files gives the curve of float64, batch by batch."""

import numpy as np
import pytest

from harness.cli import main
from harness.data import read_token_file
from harness.interchange.llmc.model import LlmcModel, write_llmc_model
from harness.models.gpt2 import GPT2
from harness.training.optimizer import OptimizerSettings
from harness.verify.float64 import Float64Model
from harness.verify.seeded_model import SeededModel

MODEL = GPT2(layers=1, heads=2, channels=16, positions=64, vocab_size=256)
B, T, STEPS = 4, 64, 40
RECIPE = OptimizerSettings("adamw", 0.9, 0.999, 1e-8, 0.0)


def batch(tokens, number):
    """B x T consecutive tokens, and the same shifted by one: how llm.c's loader cuts a stream."""
    first = number * B * T
    part = tokens[first : first + B * T + 1].astype(np.int32)
    return part[:-1].reshape(B, T), part[1:].reshape(B, T)


@pytest.fixture
def files(workplace):
    """A model of llm.c's and token files, as `harness data prepare` makes them."""
    rng = np.random.default_rng(0)
    words = ["To be", "or not", "to be", "that is", "the question", "whether", "'tis nobler\n"]
    text = " ".join(words[i] for i in rng.integers(0, len(words), 4000))
    (workplace / "play.txt").write_text(text)
    write_llmc_model(workplace / "model.bin", SeededModel(MODEL, seed=1))
    prepare = ["data", "prepare", "play.txt", "tokenizer=bytes", "out=data", "name=play"]
    assert main(prepare) == 0
    return workplace


def test_the_curve_is_that_of_float64(files, train):
    outcome = train(
        "experiment=shakespeare_finetune", "model_from=model.bin", "data.path=data", small=False
    )
    assert outcome.code == 0, outcome.err
    tokens, held_out = (read_token_file(files / "data" / f"play_{n}.bin") for n in ("train", "val"))
    with LlmcModel(files / "model.bin") as source:
        referee = Float64Model(source, B, T, [])

    def validation():
        return np.mean([referee.forward(*batch(held_out, i)) for i in range(10)])

    before, losses = validation(), []
    for step in range(STEPS):
        losses.append(referee.forward(*batch(tokens, step)))
        referee.backward()
        referee.adamw(RECIPE, 1e-4)
    found = [record["loss"] for record in outcome.records()]
    validations = [record["loss"] for record in outcome.records("validation")]
    assert found == pytest.approx(losses, rel=2e-6)  # float32, and what forty updates make of it
    assert validations == pytest.approx([before, validation()], rel=2e-6)
    assert validations[1] < validations[0]
    assert len(outcome.records("sample")) == 1


def test_without_its_files_the_experiment_says_what_it_needs(train):
    outcome = train("experiment=shakespeare_finetune", small=False)
    assert outcome.code == 2
    assert "source-needs-path" in outcome.err
