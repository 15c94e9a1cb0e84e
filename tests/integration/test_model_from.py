"""Runs that begin with a stored model, whoever stored it, and models that leave again."""

import numpy as np
import pytest

from harness import checkpoint as checkpoints
from harness.cli import main
from harness.config import command_line
from harness.interchange.initial_model import InitialModel
from harness.interchange.llmc.model import write_llmc_model
from harness.interchange.model_folder import write_model_folder
from harness.interchange.opening import open_model
from harness.models.gpt2 import GPT2
from harness.models.kinds import tensor_shapes
from harness.run.starting_model import starting_model
from harness.tokenizers import get

# What `model=micro` is on text in bytes: from stored weights of the same seed, the run is the same.
MICRO = GPT2(layers=1, heads=2, channels=32, positions=16, vocab_size=256, init="uniform")
RUN = [
    *("data=text", "data.path=text.txt", "steps=3", "batch_size=2", "sample.every=0"),
    *("baselines=false", "validate_every=0", "checkpoint_every=0"),
]


def tensors_of(path):
    with open_model(path) as source:
        found = {}
        for name, shape in tensor_shapes(source.model).items():
            found[name] = np.empty(shape, np.float32)
            source.read_into(name, found[name])
        return found


def assert_same(found, expected):
    assert found.keys() == expected.keys()
    for name, values in expected.items():
        assert found[name].tobytes() == values.tobytes(), name


@pytest.fixture
def from_stored(train):
    """A run of three steps with model_from, in a folder of its own."""

    def run(path, *overrides, runs_dir="others"):
        settings = [*RUN, f"model_from={path}", f"runs_dir={runs_dir}", *overrides]
        return train(*settings, small=False, runs_dir=runs_dir)

    return run


@pytest.mark.parametrize("kind", ["llmc", "hf", "folder"])
def test_a_run_from_stored_initial_weights_is_the_run_that_made_them(
    train, from_stored, workplace, kind
):
    stored = workplace / "stored"
    if kind == "folder":
        write_model_folder(stored, InitialModel(MICRO))
    else:
        write_llmc_model(workplace / "model.bin", InitialModel(MICRO))
        stored = workplace / "model.bin"
    if kind == "hf":
        assert main(["export", "hf", str(stored), "hf"]) == 0
        stored = workplace / "hf"
    plain, found = train(), from_stored(stored)
    assert found.code == 0, found.err
    assert found.losses == plain.losses
    assert found.weights(3) == plain.weights(3)


def test_a_model_goes_round_all_formats_and_comes_back_bit_for_bit(train, workplace):
    run = train().folder
    expected = tensors_of(run)
    assert main(["export", "llmc", str(run), "a.bin"]) == 0
    assert main(["import", "llmc", "a.bin", "b"]) == 0
    assert main(["export", "hf", "b", "c"]) == 0
    assert main(["import", "hf", "c", "d"]) == 0
    assert main(["export", "llmc", "d", "e.bin"]) == 0
    for place in ("a.bin", "b", "c", "d", "e.bin"):
        assert_same(tensors_of(place), expected)
    assert (workplace / "a.bin").read_bytes() == (workplace / "e.bin").read_bytes()
    for place in ("a.bin", "b", "c", "d", "e.bin"):
        with open_model(place) as stored:  # llm.c keeps it in a file of its own: a_tokenizer.bin
            assert stored.tokenizer.sha256 == get("bytes").sha256, place
    (workplace / "a_tokenizer.bin").unlink()
    with open_model("a.bin") as stored:
        assert stored.tokenizer is None


def test_the_tokenizer_of_a_run_goes_with_its_model_to_hugging_face(train):
    run = train().folder
    assert main(["export", "hf", str(run), "hf"]) == 0
    with open_model("hf") as stored:
        assert stored.tokenizer.sha256 == get("bytes").sha256


def test_the_moments_that_go_to_llmc_come_back(train, from_stored, workplace):
    whole = train("steps=4", "data.shuffle=false", "schedule=constant", runs_dir="runs")
    half = train(
        "steps=2", "data.shuffle=false", "schedule=constant", "runs_dir=half", runs_dir="half"
    )
    assert main(["export", "llmc", str(half.folder), "set", "--state"]) == 0
    names = sorted(path.name for path in (workplace / "set").iterdir())
    assert names == ["DONE_00000002", "model_00000002.bin", "state_00000002_00000.bin"]
    # The tokens of steps 3 and 4 are the first that the new run sees: 2 x 2 sequences of 16 on.
    text = (workplace / "text.txt").read_bytes()
    (workplace / "later.txt").write_bytes(text[64:])
    later = from_stored(
        "set", "optimizer_from=set", "data.path=later.txt", "steps=2", "data.shuffle=false",
        "schedule=constant",
    )  # fmt: skip
    assert later.code == 0, later.err
    assert "moments of 2 updates" in later.out
    assert later.losses == whole.losses[2:]


def trained_with(op, train, workplace):
    """A checkpoint that says it was trained with another op in the place of GELU."""
    run = train("sample.every=0").folder
    found, _ = checkpoints.newest(run / "checkpoints")
    tensors = {group: found.tensors(group) for group in found.groups}
    state = found.state
    state["fingerprint"]["model.activation"] = op
    return checkpoints.save(workplace / "other" / "checkpoints", 3, tensors, state, 1)


def test_an_op_of_a_plugin_goes_with_the_model_or_the_model_does_not_go(
    train, from_stored, workplace, capfd
):
    stored = trained_with("softmax", train, workplace)  # any op but gelu will do
    assert main(["export", "llmc", str(stored), "plug.bin"]) == 2
    assert "llmc-has-no-such-op" in capfd.readouterr().err
    assert not (workplace / "plug.bin").exists()
    with open_model(stored) as source:
        write_model_folder(workplace / "kept", source)
    with open_model("kept") as source:
        assert source.model.activation == "softmax"
    (config,) = command_line.check([*RUN, "model_from=kept"])
    with starting_model(config) as (run, _):
        assert run.model.activation == "softmax"
    outcome = from_stored("kept", "model.activation=residual")
    assert outcome.code == 2 and "ops-of-another-model" in outcome.err


def test_moments_that_would_make_weights_nan_are_refused(train, from_stored, workplace):
    run = train().folder
    assert main(["export", "llmc", str(run), "set", "--state"]) == 0
    path = workplace / "set" / "state_00000003_00000.bin"
    content = bytearray(path.read_bytes())
    size = (len(content) - 1024) // 2
    v = np.frombuffer(content, np.float32, offset=1024 + size)
    v[5] = -1e-3
    path.write_bytes(content)
    outcome = from_stored("set", "optimizer_from=set")
    assert outcome.code == 6 and "moments-negative" in outcome.err
    assert not outcome.folders


def test_a_state_of_another_step_than_its_name_says_is_refused(train, from_stored, workplace):
    run = train().folder
    assert main(["export", "llmc", str(run), "set", "--state"]) == 0
    path = workplace / "set" / "state_00000003_00000.bin"
    content = bytearray(path.read_bytes())
    content[40:44] = (999_999).to_bytes(4, "little")
    path.write_bytes(content)
    outcome = from_stored("set", "optimizer_from=set")
    assert outcome.code == 4 and "another step" in outcome.err


@pytest.mark.parametrize(
    "overrides, code, words",
    [
        (["model_from=nowhere"], 4, "model-missing"),
        (["model_from=text.txt"], 4, "llmc"),
        (["model_from=stored", "model.layers=2"], 2, "model-has-a-shape"),
        (["model_from=stored", "model=tiny"], 2, "model-has-a-shape"),
        (["model_from=stored", "data.tokenizer=char"], 2, "tokenizer-of-another-model"),
        (["model_from=stored", "sequence_length=17"], 2, "too-long-for-model"),
        (["optimizer_from=stored"], 2, "moments-without-model"),
        (["model_from=stored", "optimizer_from=stored"], 4, "llmc-set-missing"),
        (["model_from=few"], 2, "tokenizer-larger-than-model"),
    ],
)
def test_what_does_not_fit_is_named(train, workplace, overrides, code, words):
    write_model_folder(workplace / "stored", InitialModel(MICRO, tokenizer=get("bytes")))
    few = GPT2(layers=1, heads=1, channels=4, positions=16, vocab_size=100)
    write_model_folder(workplace / "few", InitialModel(few))
    outcome = train(*RUN, *overrides, small=False)
    assert outcome.code == code, outcome.err
    assert words in outcome.err
    assert not outcome.folders


def test_a_run_from_a_run_goes_on_with_its_weights(train, from_stored):
    first = train()
    second = from_stored(first.folder, "validate_at_start=true")
    assert second.code == 0, second.err
    before, after = (r["loss"] for r in second.records("validation"))
    (reached,) = (r["loss"] for r in first.records("validation"))
    assert before == pytest.approx(reached, abs=1e-6)
    assert after != before
